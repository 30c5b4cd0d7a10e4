#pragma once

namespace fathom::train {

/// The type to which matrix products of hand-written layers round their factors. Sums and all other operations are
/// f32.
enum class Factors { kF32, kBF16 };

/// Returns whether this machine has a kernel for products of these factors.
bool has_products_of(Factors factors);

}  // namespace fathom::train
