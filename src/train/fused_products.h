#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>

#include "base/thread_pool.h"
#include "kernels/kernels.h"
#include "train/factors.h"

namespace fathom::train {

/// The threads of hand-written layers: as many as libtorch was told to use when the first was run.
ThreadPool& training_pool();

/// Calls f(row) for all rows, some at a time on each thread.
void for_rows(int64_t rows, const std::function<void(int64_t row)>& f);

/// Calls f(begin, end) for parts of at most `rows_of_part` rows, on all threads.
void for_parts(int64_t rows, int64_t rows_of_part, const std::function<void(int64_t begin, int64_t end)>& f);

/// Rows that a thread multiplies at once, for which the other factor is packed once: whole tiles.
inline constexpr int64_t kRowsOfPart = 264;

/// The product on this thread.
void multiply(Factors factors, const FloatProduct& product);
/// All products, in parts of at most kRowsOfPart rows of y, on all threads.
void multiply_all(Factors factors, std::span<const FloatProduct> products);

inline float* floats(const at::Tensor& x) { return x.data_ptr<float>(); }

/// y = x·wᵀ or y += x·wᵀ of contiguous matrices. x: [rows, cols], w: [outputs, cols], y: [rows, outputs].
FloatProduct forth(const at::Tensor& x, const at::Tensor& w, const at::Tensor& y, bool add = false);
/// Its gradient of x: dx = dy·w, or added to dx.
FloatProduct back_to_rows(const at::Tensor& dy, const at::Tensor& w, const at::Tensor& dx, bool add = false);
/// Its gradient of w: dw = dyᵀ·x.
FloatProduct back_to_weights(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& dw);
/// Rows [begin, end) of y alone.
FloatProduct rows_of(FloatProduct product, int64_t begin, int64_t end);

}  // namespace fathom::train
