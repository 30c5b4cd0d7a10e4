#pragma once

namespace fathom::train {

/// What the products of hand-written layers round their factors to; sums, and all that is no product, are f32.
enum class Factors { kF32, kBF16 };

/// Whether this machine has a kernel for such products.
bool has_products_of(Factors factors);

}  // namespace fathom::train
