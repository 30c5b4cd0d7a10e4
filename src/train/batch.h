#pragma once

#include <cstdint>
#include <vector>

namespace fathom::train {

/// Sequences of one length; none sees another.
struct Batch {
  int64_t sequences = 0, length = 0;
  std::vector<int32_t> tokens{};  // [sequences, length + 1]: each token but a row's first is a target
  std::vector<float> weights{};   // [sequences, length], ≥ 0: how much predicting tokens[s, i + 1] counts
};

/// Where batches come from.
class BatchSource {
 public:
  virtual ~BatchSource() = default;
  /// The batch of a step, from 0: depends on nothing but the step, so that a run that goes on sees what it would
  /// have seen.
  virtual Batch batch(int64_t step) = 0;
};

}  // namespace fathom::train
