#pragma once

#include <cstdint>

#include "memory/sequence.h"

namespace fathom {

/// Memory keeps a block of tokens and its landmark on one page.
inline constexpr int64_t kMaxLandmarkTokens = kPageTokens - 1;

/// Where the landmarks of a sequence lie: after every `tokens` others comes one. All counts stay as they are for a
/// model without.
struct Landmarks {
  int64_t tokens = 0;  // 0: the model has none

  explicit operator bool() const { return tokens > 0; }
  /// A block and its landmark.
  int64_t block() const { return tokens + 1; }
  /// How many tokens n become with their landmarks, and the other way round.
  int64_t with(int64_t n) const { return tokens > 0 ? n + n / tokens : n; }
  int64_t without(int64_t n) const { return tokens > 0 ? n - n / block() : n; }
  /// A page's bit of its landmark; none for a model without.
  uint64_t bit() const { return tokens > 0 ? uint64_t{1} << tokens : 0; }
  /// Tokens after which a page is full.
  int page_tokens() const { return tokens > 0 ? static_cast<int>(block()) : kPageTokens; }
};

}  // namespace fathom
