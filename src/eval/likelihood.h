#pragma once

#include <span>

namespace fathom::eval {

/// Returns log Σ exp(logit) of a row, accumulated in double.
double log_sum_exp(std::span<const float> logits);

}  // namespace fathom::eval
