#include "train/schedule.h"

#include <algorithm>
#include <cmath>

namespace fathom::train {
namespace {

/// Returns the share of [first, last] before `step`, 0 to 1; 1 if step ≥ last.
double share_done(int64_t step, int64_t first, int64_t last) {
  if (step >= last) return 1;
  return std::max(0.0, static_cast<double>(step - first) / static_cast<double>(last - first));
}

}  // namespace

double learning_rate(const Schedule& s, int64_t step) {
  if (step < s.warmup_steps) return s.peak * static_cast<double>(step + 1) / static_cast<double>(s.warmup_steps);
  const int64_t last = s.steps - 1;
  const double floor = s.peak * s.floor_share;
  if (s.kind == Schedule::Kind::kCosine) {
    const int64_t first = std::max<int64_t>(s.warmup_steps - 1, 0);
    return floor + (s.peak - floor) * 0.5 * (1 + std::cos(M_PI * share_done(step, first, last)));
  }
  if (s.decay_steps == 0) return s.peak;
  return s.peak - (s.peak - floor) * share_done(step, last - s.decay_steps, last);
}

}  // namespace fathom::train
