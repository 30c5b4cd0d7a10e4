#pragma once

#include <cstdint>

#include "memory/sequence.h"

namespace fathom {

/// The maximum number of tokens between landmarks: a page holds one block of tokens and its landmark.
inline constexpr int64_t kMaxLandmarkTokens = kPageTokens - 1;

/// The spacing of landmark tokens: one follows every `tokens` ordinary tokens. Without landmarks, with() and
/// without() return their argument.
struct Landmarks {
  int64_t tokens = 0;  // ordinary tokens of a block; 0: the model has no landmarks

  explicit operator bool() const { return tokens > 0; }
  /// Returns the tokens of a block, its landmark included.
  int64_t block() const { return tokens + 1; }
  /// Returns the length of n tokens after their landmarks are inserted.
  int64_t with(int64_t n) const { return tokens > 0 ? n + n / tokens : n; }
  /// Returns the number of ordinary tokens among the first n tokens of a sequence with landmarks.
  int64_t without(int64_t n) const { return tokens > 0 ? n - n / block() : n; }
  /// Returns the bit of the landmark in a page's mask; 0 if the model has no landmarks.
  uint64_t bit() const { return tokens > 0 ? uint64_t{1} << tokens : 0; }
  /// Returns the number of tokens of a full page.
  int page_tokens() const { return tokens > 0 ? static_cast<int>(block()) : kPageTokens; }
};

}  // namespace fathom
