#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace fathom::train {

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.95;  // how slowly the means of gradients and of their squares move
  double eps = 1e-8;
  double weight_decay = 0.1;  // times the rate, of the values that decay
};

struct ValueRange {
  int64_t begin = 0, end = 0;
};

/// AdamW ("Decoupled Weight Decay Regularization", Loshchilov and Hutter 2019) over flat f32 values. Each value's
/// update depends on its own gradient and state only, so results do not depend on threads.
class AdamW {
 public:
  /// The first `decaying` of `count` values decay; those of `others` are moved by another optimizer, to which their
  /// first moments belong.
  AdamW(int64_t count, int64_t decaying, AdamWOptions options, ValueRange others = {});

  /// One step over values and gradients, [count]; the gradients count times `gradient_scale`.
  void step(std::span<float> values, std::span<const float> gradients, double learning_rate,
            double gradient_scale = 1);

  int64_t steps() const { return steps_; }
  void set_steps(int64_t steps) { steps_ = steps; }
  /// Means of gradients and of their squares, [count]; with steps() all the state there is.
  std::span<float> first_moments() { return first_; }
  std::span<float> second_moments() { return second_; }

 private:
  AdamWOptions options_;
  int64_t decaying_;
  ValueRange others_;
  int64_t steps_ = 0;
  std::vector<float> first_, second_;
};

/// √Σx², summed in double in an order that does not depend on threads.
double global_norm(std::span<const float> values);

/// What to multiply gradients of this norm with so that it is at most `limit`; 0 = no limit.
double clip_scale(double norm, double limit);

}  // namespace fathom::train
