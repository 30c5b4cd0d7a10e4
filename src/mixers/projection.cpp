#include "mixers/projection.h"

namespace fathom {

void project(Workspace& work, ActivationBuffer& x, std::span<const Product> products) {
  matmul(work.pool, work.kernels, x, products);
  if (!work.adapted_rows.empty())
    add_updates(work.pool, work.kernels, x, products, work.adapted_rows, work.low_rank);
}

}  // namespace fathom
