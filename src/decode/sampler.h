#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "decode/candidates.h"
#include "decode/constraint_cursor.h"
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
  /// Returns whether the token is that with the largest logit, whatever the history.
  bool plain() const { return greedy_ && steps_.size() == 1 && !constraint_; }
  uint64_t seed() const { return seed_; }

  /// Applies a constraint before all steps to the tokens after the first `prompt_tokens` of each history; null:
  /// none.
  void constrain(std::shared_ptr<const Constraint> constraint, int64_t prompt_tokens);

  /// Returns the distribution after all steps; a probability is exp(logit − log_sum()). Valid until the next call.
  /// Throws Error if a logit is NaN or +∞, or if the history breaks the constraint.
  const Candidates& distribution(std::span<const float> logits, std::span<const int32_t> history);
  /// Samples the token at `position` of the sequence. history: the tokens before it.
  int32_t sample(std::span<const float> logits, std::span<const int32_t> history, int64_t position);

 private:
  std::vector<std::unique_ptr<SampleStep>> steps_;
  uint64_t seed_;
  bool greedy_ = true;
  std::optional<ConstraintCursor> constraint_;
  Candidates candidates_;
};

/// Samples from the softmax of the candidates: adds Gumbel noise to each logit and takes the largest (Gumbel-max
/// trick). The noise of a token depends on seed, position and id alone, so a draft that adds the same noise to
/// similar logits mostly draws the same token.
int32_t draw(const Candidates& candidates, uint64_t seed, int64_t position);
/// Returns the n candidates (all if there are fewer) with the largest perturbed logits, the largest first. The
/// first one is that of draw(); logits are those of `candidates`.
std::vector<Candidate> draw_best(const Candidates& candidates, uint64_t seed, int64_t position, size_t n);

}  // namespace fathom
