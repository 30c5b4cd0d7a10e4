#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "decode/candidates.h"
#include "decode/sample_step.h"

namespace fathom {

/// A chain of sampling steps and the final choice of a token. The token depends on the logits, the history, the
/// seed and the position alone, not on earlier calls, so rejected drafts and rewound sequences do not affect it.
class Sampler {
 public:
  /// steps: specs of sampling steps, in order. If none of them draws, the best token is taken. Throws Error
  /// (usage).
  explicit Sampler(std::span<const std::string> steps = {}, uint64_t seed = 0);

  /// Returns whether the best token is taken (of tied ones the lowest id), so that the seed has no effect.
  bool greedy() const { return greedy_; }
  uint64_t seed() const { return seed_; }

  /// Returns the distribution after all steps; a probability is exp(logit − log_sum()). Valid until the next call.
  /// Throws Error if a logit is NaN or +∞.
  const Candidates& distribution(std::span<const float> logits, std::span<const int32_t> history);
  /// Samples the token at `position` of the sequence. history: the tokens before it.
  int32_t sample(std::span<const float> logits, std::span<const int32_t> history, int64_t position);

 private:
  std::vector<std::unique_ptr<SampleStep>> steps_;
  uint64_t seed_;
  bool greedy_ = true;
  Candidates candidates_;
};

/// Samples from the softmax of the candidates: adds Gumbel noise to each logit and takes the largest (Gumbel-max
/// trick). The noise of a token depends on seed, position and id alone, so a draft that adds the same noise to
/// similar logits mostly draws the same token.
int32_t draw(const Candidates& candidates, uint64_t seed, int64_t position);

}  // namespace fathom
