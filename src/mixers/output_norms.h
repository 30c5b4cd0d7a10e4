#pragma once

#include "base/thread_pool.h"
#include "kernels/kernels.h"

namespace fathom {

/// The heads of an attention layer and its output projection.
struct OutputShape {
  int heads = 0, kv_heads = 0, value_dim = 0;
  const Matrix* projection = nullptr;  // [width, heads·value_dim]
};

/// Computes norms[i] = the mean of ‖W v‖₁ over the query heads that share value v, where W are the columns of the
/// output projection for a head. values: [kv_heads, rows, value_dim]; norms: [kv_heads, rows]. Cost: unpacks the
/// projection once, plus the multiply-adds of the projection for each row.
void output_norms(const OutputShape& shape, int64_t rows, const float* values, float* norms, ThreadPool& pool,
                  const Kernels& kernels);

}  // namespace fathom
