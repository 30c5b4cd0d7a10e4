#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace fathom::train {

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.95;  // decay of the means of gradients and of their squares
  double eps = 1e-8;
  double weight_decay = 0.1;  // each step shrinks the values by this factor times the learning rate
};

/// Values [begin, end).
struct ValueRange {
  int64_t begin = 0, end = 0;
};

/// AdamW ("Decoupled Weight Decay Regularization", Loshchilov and Hutter 2019) over flat f32 values. Each value's
/// update depends only on its own gradient and state, so results do not depend on the number of threads.
class AdamW {
 public:
  /// count: number of values; weight decay applies to the first `decaying` of them. others: values that another
  /// optimizer updates; it also uses their first moments.
  AdamW(int64_t count, int64_t decaying, AdamWOptions options, ValueRange others = {});

  /// Makes one step. values, gradients: [count]; gradients are multiplied by `gradient_scale`.
  void step(std::span<float> values, std::span<const float> gradients, double learning_rate,
            double gradient_scale = 1);

  int64_t steps() const { return steps_; }
  void set_steps(int64_t steps) { steps_ = steps; }
  /// Return the means of gradients and of their squares, [count]. With steps() they are the whole state.
  std::span<float> first_moments() { return first_; }
  std::span<float> second_moments() { return second_; }

 private:
  AdamWOptions options_;
  int64_t decaying_;
  ValueRange others_;
  int64_t steps_ = 0;
  std::vector<float> first_, second_;
};

/// Returns √Σx², summed in double in an order that does not depend on the number of threads.
double global_norm(std::span<const float> values);

/// Returns the factor that reduces gradients of this norm to norm `limit`, at most 1. limit 0: no limit.
double clip_scale(double norm, double limit);

}  // namespace fathom::train
