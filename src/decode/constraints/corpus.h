#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "decode/constraint.h"
#include "decode/constraints/fm_index.h"
#include "decode/passages.h"

namespace fathom {

/// Largest size of the texts of an index, in bytes; bounds its memory.
inline constexpr size_t kMaxCorpusBytes = size_t{1} << 30;

/// Encodes each passage on its own, without BOS and EOS. Throws Error if they are larger than kMaxCorpusBytes.
std::vector<std::vector<int32_t>> encode_passages(const Tokenizer& tokenizer,
                                                  const std::vector<std::string_view>& passages);

/// Returns the index of passages. Throws Error if they have no tokens.
std::shared_ptr<const FmIndex> index_passages(std::span<const std::vector<int32_t>> passages);

/// When a text that follows a corpus may end. It also may where no token can follow.
struct CorpusEnd {
  int64_t min = 1;         // after this many tokens
  int64_t stop_count = 0;  // as soon as the corpus holds the text at most this often
};

/// Returns the constraint that the generated tokens occur, in this order and without a gap, in a passage. Throws
/// Error if the vocabulary has no end-of-generation token.
std::shared_ptr<const Constraint> make_corpus_constraint(const Tokenizer& tokenizer,
                                                         std::shared_ptr<const FmIndex> index, CorpusEnd end);

}  // namespace fathom
