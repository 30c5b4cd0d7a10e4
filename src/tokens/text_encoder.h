#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tokens/vocabulary.h"
#include "tokens/word_cache.h"

namespace fathom {

/// Encodes text without special tokens for one kind of vocabulary. Thread-safe.
class TextEncoder {
 public:
  virtual ~TextEncoder() = default;

  /// Appends the ids of `text`: any bytes, not empty. begins: the text is at the start or follows a control token.
  /// Throws Error for a byte for which the vocabulary has neither a token nor an unknown token.
  virtual void encode(std::string_view text, bool begins, std::vector<int32_t>& ids, WordCache& cache) const = 0;

  /// Returns the text of a normal piece.
  virtual std::string text_of(std::string_view piece) const = 0;

  /// Returns whether encode() inserts a space before a text that `begins`, which decoding must remove.
  virtual bool adds_space() const { return false; }
};

/// Return the encoder of each kind. They keep a reference to the vocabulary, which must have passed check().
std::unique_ptr<TextEncoder> make_sentence_piece_encoder(const Vocabulary& vocabulary);
std::unique_ptr<TextEncoder> make_unigram_encoder(const Vocabulary& vocabulary);
std::unique_ptr<TextEncoder> make_byte_level_encoder(const Vocabulary& vocabulary);
std::unique_ptr<TextEncoder> make_word_piece_encoder(const Vocabulary& vocabulary);

}  // namespace fathom
