#pragma once

#include <cstdint>
#include <vector>

#include "decode/candidates.h"

namespace fathom {

/// A set of token ids that may be sampled next.
class AllowedTokens {
 public:
  /// vocabulary: number of tokens.
  explicit AllowedTokens(int32_t vocabulary) : words_((static_cast<size_t>(vocabulary) + 63) / 64) {}

  /// Adds a token of the vocabulary.
  void add(int32_t token) { words_[static_cast<size_t>(token) / 64] |= uint64_t{1} << token % 64; }
  /// Returns whether the set holds a token, which may be outside the vocabulary.
  bool contains(int32_t token) const {
    const auto word = static_cast<size_t>(token) / 64;
    return word < words_.size() && (words_[word] >> token % 64 & 1) != 0;
  }

  size_t bytes() const { return words_.size() * sizeof(uint64_t); }

  /// Removes the other candidates and keeps the order of these. Throws Error if none is left.
  void restrict(Candidates& candidates) const;

 private:
  std::vector<uint64_t> words_;
};

}  // namespace fathom
