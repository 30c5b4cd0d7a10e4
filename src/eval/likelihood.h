#pragma once

#include <span>

namespace fathom::eval {

/// log Σ exp of a row of logits, in double.
double log_sum_exp(std::span<const float> logits);

}  // namespace fathom::eval
