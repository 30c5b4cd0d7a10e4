#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "decode/constraint.h"

namespace fathom {

/// Applies a constraint to histories that grow, shrink or branch. Keeps one state per generated token of the latest
/// history, so a history that has a prefix in common with it costs only its other tokens.
class ConstraintCursor {
 public:
  /// prompt: number of tokens at the beginning of each history that were not generated.
  ConstraintCursor(std::shared_ptr<const Constraint> constraint, int64_t prompt);

  /// Removes the candidates that may not follow `history`, prompt included. If the model gives all others the
  /// probability 0, they become equally likely. Throws Error if the history is shorter than the prompt or breaks
  /// the constraint.
  void restrict(Candidates& candidates, std::span<const int32_t> history);

 private:
  std::shared_ptr<const Constraint> constraint_;
  int64_t prompt_;
  std::vector<int32_t> tokens_;                           // generated tokens of the latest history
  std::vector<std::unique_ptr<ConstraintState>> states_;  // [1 + tokens] after the first 0, 1, … of them
};

}  // namespace fathom
