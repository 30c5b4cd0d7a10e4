#pragma once

#include <cstdint>

namespace fathom::train {

/// How fast to learn at which step.
struct Schedule {
  enum class Kind {
    kCosine,  // after the warm-up half a cosine down to the floor (SGDR, Loshchilov and Hutter 2017)
    kStable,  // warm-up, peak, then a line down to the floor over the last decay_steps (MiniCPM, Hu et al. 2024)
  };
  Kind kind = Kind::kCosine;
  double peak = 3e-4;
  double floor_share = 0.1;  // the floor as a share of the peak
  int64_t warmup_steps = 100;
  int64_t decay_steps = 0;  // of kStable
  int64_t steps = 1000;     // of the whole run
};

/// The rate of a step from 0; the floor at and after the last. The warm-up rises in equal parts and ends at the
/// peak.
double learning_rate(const Schedule& schedule, int64_t step);

}  // namespace fathom::train
