#pragma once

#include "base/thread_pool.h"
#include "kernels/kernels.h"

namespace fathom {

/// How heads share values, and what brings them back to the width of the model.
struct OutputShape {
  int heads = 0, kv_heads = 0, value_dim = 0;
  const Matrix* projection = nullptr;  // [width, heads·value_dim]
};

/// ‖W v‖₁ of values, W the columns of a head: the mean over the heads that share a value. values: [kv_heads, rows,
/// value_dim]; norms: [kv_heads, rows]. Costs the projection once, unpacked, and its multiply-adds for each row.
void output_norms(const OutputShape& shape, int64_t rows, const float* values, float* norms, ThreadPool& pool,
                  const Kernels& kernels);

}  // namespace fathom
