#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "decode/candidates.h"
#include "decode/sample_step.h"

namespace fathom {

/// A chain of steps and the choice at its end. What it chooses depends on the logits, the history, the seed and the
/// position alone, never on what was chosen before: drafts that fail and sequences that go back do not disturb it.
class Sampler {
 public:
  /// steps: specs of sampling steps, in order; with none that draws, the best token is taken. Throws Error (usage).
  explicit Sampler(std::span<const std::string> steps = {}, uint64_t seed = 0);

  /// Whether the best token is taken (of equals the lowest id), so that the seed plays no part.
  bool greedy() const { return greedy_; }
  uint64_t seed() const { return seed_; }

  /// The distribution after all steps: probability is exp(logit − log_sum()). Valid until the next call. Throws
  /// Error for logits that are no numbers.
  const Candidates& distribution(std::span<const float> logits, std::span<const int32_t> history);
  /// Chooses the token at `position` of the sequence; history: the tokens before it.
  int32_t sample(std::span<const float> logits, std::span<const int32_t> history, int64_t position);

 private:
  std::vector<std::unique_ptr<SampleStep>> steps_;
  uint64_t seed_;
  bool greedy_ = true;
  Candidates candidates_;
};

/// Draws from the candidates' softmax by adding Gumbel noise to each logit and taking the best: the noise of a
/// token depends on seed, position and id alone, so a draft that adds the same noise to similar logits mostly draws
/// the same.
int32_t draw(const Candidates& candidates, uint64_t seed, int64_t position);

}  // namespace fathom
