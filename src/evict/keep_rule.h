#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace fathom {

/// How tokens are kept by their scores.
struct KeepRule {
  int64_t sink = 0;       // first tokens of the sequence, always kept
  int64_t window = 0;     // newest tokens, always kept
  int64_t block = 1;      // neighbours that are kept or evicted together, by their mean score
  bool by_layer = false;  // the heads of a layer share one budget; each keeps a fifth of its even part at least
};

/// Which tokens of a layer stay, [heads, tokens]: those always kept, and of the others the best until each head (or
/// all together, by_layer) holds `budget` tokens (a head on average); of equal ones the newer. What is always kept
/// counts, and may exceed the budget. scores: [heads, tokens], −∞: not there. Tokens that are not there do not
/// stay.
std::vector<char> keep_best(std::span<const float> scores, int heads, int64_t budget, const KeepRule& rule);

/// The same in two steps (CriticalKV): half the budget by the scores, the rest by (score + 1e-4) · weight. Both
/// [heads, tokens], none of them negative (−∞ aside), scores of the size of mean attention; they are changed.
std::vector<char> keep_critical(std::span<float> scores, std::span<const float> weights, int heads, int64_t budget,
                                const KeepRule& rule);

}  // namespace fathom
