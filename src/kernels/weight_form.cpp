#include "kernels/weight_form.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace fathom {

double log_weight(const WeightForm& form, int64_t query, double score) {
  if (!form.softplus) return score;
  constexpr double kFar = -30;  // below, ln(1 + e^x) is e^x to the last digit
  const double softplus = std::max(score, 0.0) + std::log1p(std::exp(-std::fabs(score)));
  const double log_softplus = score < kFar ? score : std::log(softplus);
  if (!form.reweighting) return log_softplus;
  const Reweighting& r = form.reweighting[query];
  const double above = r.tokens * std::exp(log_softplus - r.lse) - r.offset;
  return above > 0 ? form.power * std::log(above) : -std::numeric_limits<double>::infinity();
}

}  // namespace fathom
