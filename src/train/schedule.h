#pragma once

#include <cstdint>

namespace fathom::train {

/// The learning rate as a function of the step.
struct Schedule {
  enum class Kind {
    kCosine,  // warm-up, then half a cosine down to the floor (SGDR, Loshchilov and Hutter 2017)
    kStable,  // warm-up, peak, then linear to the floor over the last decay_steps (MiniCPM, Hu et al. 2024)
  };
  Kind kind = Kind::kCosine;
  double peak = 3e-4;
  double floor_share = 0.1;  // the floor divided by the peak
  int64_t warmup_steps = 100;
  int64_t decay_steps = 0;  // of kStable
  int64_t steps = 1000;     // of the whole run
};

/// Returns the learning rate of a step, counted from 0. The warm-up is linear and ends at the peak. The last step
/// and those after it have the floor.
double learning_rate(const Schedule& schedule, int64_t step);

}  // namespace fathom::train
