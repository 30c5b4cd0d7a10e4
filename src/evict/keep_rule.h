#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace fathom {

/// How scores decide which tokens are kept.
struct KeepRule {
  int64_t sink = 0;       // first tokens of the sequence, always kept
  int64_t window = 0;     // newest tokens, always kept
  int64_t block = 1;      // neighbours that are kept or evicted together, by their mean score
  bool by_layer = false;  // the heads of a layer share one budget; each keeps at least a fifth of an even share
};

/// Returns which tokens of a layer to keep, [heads, tokens], 1 or 0. Sink and window are always kept; they count
/// towards the budget and may exceed it. Blocks follow in the order of their scores, as long as each head holds at
/// most `budget` tokens (by_layer: the heads together at most heads · budget). If scores are equal, the newer block
/// is kept. scores: [heads, tokens]; −∞ marks a token that was evicted before: it is neither kept nor counted.
std::vector<char> keep_best(std::span<const float> scores, int heads, int64_t budget, const KeepRule& rule);

/// Like keep_best, but in two steps: half the budget is filled by score, the rest by (score + 1e-4) · weight.
/// scores and weights: [heads, tokens], not negative (except −∞). The constant suits scores that are means of
/// attention probabilities. Overwrites scores. Identify Critical KV Cache in LLM Inference from an Output
/// Perturbation Perspective (CriticalKV), 2025.
std::vector<char> keep_critical(std::span<float> scores, std::span<const float> weights, int heads, int64_t budget,
                                const KeepRule& rule);

}  // namespace fathom
