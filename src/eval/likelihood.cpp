#include "eval/likelihood.h"

#include <algorithm>
#include <cmath>

namespace fathom::eval {

double log_sum_exp(std::span<const float> logits) {
  const double max = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - max);
  return max + std::log(sum);
}

}  // namespace fathom::eval
