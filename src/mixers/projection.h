#pragma once

#include <span>

#include "mixers/mixer.h"

namespace fathom {

/// Multiplies the rows of a batch with weights of the model: y = x·Wᵀ (+ bias), plus the updates of the adapters of
/// each row (Workspace::adapted_rows). x: one row for each row of the pass.
void project(Workspace& work, ActivationBuffer& x, std::span<const Product> products);

}  // namespace fathom
