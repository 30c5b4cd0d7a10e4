#pragma once

#include <array>

#include "tokens/text_encoder.h"

namespace fathom {

/// The common part of SentencePiece's two algorithms. Pieces spell a space as U+2581, a space may be inserted
/// before the text, and characters that no piece covers are encoded as byte tokens. Bytes that are not UTF-8, and
/// U+2581 itself, are always encoded as byte tokens if the vocabulary has them, so that decoding restores them.
class SpacedEncoder : public TextEncoder {
 public:
  void encode(std::string_view text, bool begins, std::vector<int32_t>& ids, WordCache& cache) const override;
  std::string text_of(std::string_view piece) const override;
  bool adds_space() const override { return vocabulary_.add_space_prefix; }

 protected:
  explicit SpacedEncoder(const Vocabulary& vocabulary);

  /// Appends the ids of one run: UTF-8 text with spaces spelt as U+2581. No token extends beyond a run.
  virtual void encode_run(std::string_view run, std::vector<int32_t>& ids) const = 0;

  /// Appends byte tokens for a character of a run, or the unknown token if the vocabulary lacks them.
  void append_bytes(std::string_view character, std::vector<int32_t>& ids) const;
  bool has_all_bytes() const { return has_all_bytes_; }

  const Vocabulary& vocabulary_;

 private:
  void encode_word(std::string_view word, std::vector<int32_t>& ids) const;
  size_t word_bytes(std::string_view text) const;
  void append_byte(unsigned char byte, std::vector<int32_t>& ids) const;

  std::array<int32_t, 256> byte_ids_;
  bool has_all_bytes_ = true;
  bool words_are_independent_ = true;  // no piece has a space after another character
};

}  // namespace fathom
