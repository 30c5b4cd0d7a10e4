#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "base/thread_pool.h"

namespace fathom {

/// The threads of hand-written layers: as many as libtorch was told to use when the first was run.
ThreadPool& training_pool();

/// Calls f(row) for all rows, some at a time on each thread.
void for_rows(int64_t rows, const std::function<void(int64_t row)>& f);

/// a·bᵀ by the engine's matmul. a: [n, k], b: [m, k], f32 and contiguous; returns [n, m].
at::Tensor product(const at::Tensor& a, const at::Tensor& b);

/// A contiguous copy of x: [n, m] as [m, n].
at::Tensor transposed(const at::Tensor& x);

inline float* floats(const at::Tensor& x) { return x.data_ptr<float>(); }

}  // namespace fathom
