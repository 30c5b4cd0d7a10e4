#pragma once

#include <cstdint>
#include <vector>

namespace fathom::train {

/// Sequences of one length. They do not attend to each other.
struct Batch {
  int64_t sequences = 0, length = 0;
  std::vector<int32_t> tokens{};  // [sequences, length + 1]: each token but a row's first is a target
  std::vector<float> weights{};   // [sequences, length], ≥ 0: loss weight of predicting tokens[s, i + 1]
};

/// A source of batches.
class BatchSource {
 public:
  virtual ~BatchSource() = default;
  /// Returns the batch of a step, counted from 0. It depends only on the step, so a continued run gets the same
  /// batches as an uninterrupted one.
  virtual Batch batch(int64_t step) = 0;
};

}  // namespace fathom::train
