#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tokens/vocabulary.h"
#include "tokens/word_cache.h"

namespace fathom {

/// How one kind of vocabulary cuts text without special tokens into ids. Thread-safe.
class TextEncoder {
 public:
  virtual ~TextEncoder() = default;

  /// Appends the ids of `text`, which is not empty; begins: it stands at the start or behind a control token, not
  /// behind a user-defined one. Any bytes are taken. Throws Error for a byte that the vocabulary can express in no
  /// way.
  virtual void encode(std::string_view text, bool begins, std::vector<int32_t>& ids, WordCache& cache) const = 0;

  /// The text that a normal piece stands for.
  virtual std::string text_of(std::string_view piece) const = 0;

  /// Whether a space at the front of a text that `begins` was put there by encode().
  virtual bool adds_space() const { return false; }
};

/// The encoders keep a reference to the vocabulary, which must have passed check().
std::unique_ptr<TextEncoder> make_sentence_piece_encoder(const Vocabulary& vocabulary);
std::unique_ptr<TextEncoder> make_unigram_encoder(const Vocabulary& vocabulary);
std::unique_ptr<TextEncoder> make_byte_level_encoder(const Vocabulary& vocabulary);
std::unique_ptr<TextEncoder> make_word_piece_encoder(const Vocabulary& vocabulary);

}  // namespace fathom
