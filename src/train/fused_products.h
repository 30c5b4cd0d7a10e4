#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>

#include "base/thread_pool.h"
#include "kernels/kernels.h"
#include "train/factors.h"

namespace fathom::train {

/// Returns the thread pool of the hand-written layers. It has as many threads as libtorch had at the first call.
ThreadPool& training_pool();

/// Calls f(row) for all rows, on all threads.
void for_rows(int64_t rows, const std::function<void(int64_t row)>& f);

/// Splits `rows` rows into parts of at most `rows_of_part` rows and calls f(begin, end) for each, on all threads.
void for_parts(int64_t rows, int64_t rows_of_part, const std::function<void(int64_t begin, int64_t end)>& f);

/// Maximum number of rows that a thread multiplies at once, a multiple of the tile height. The other factor is
/// packed once for these rows.
inline constexpr int64_t kRowsOfPart = 264;

/// Computes a product on this thread.
void multiply(Factors factors, const FloatProduct& product);
/// Computes all products on all threads, in parts of at most kRowsOfPart rows of y.
void multiply_all(Factors factors, std::span<const FloatProduct> products);

/// Returns the data of a float tensor.
inline float* floats(const at::Tensor& x) { return x.data_ptr<float>(); }

/// Returns the product y = x·wᵀ, or y += x·wᵀ if `add`, of contiguous matrices. x: [rows, cols], w: [outputs,
/// cols], y: [rows, outputs].
FloatProduct product_of(const at::Tensor& x, const at::Tensor& w, const at::Tensor& y, bool add = false);
/// Returns the product of the gradient of x: dx = dy·w, or dx += dy·w if `add`.
FloatProduct gradient_of_rows(const at::Tensor& dy, const at::Tensor& w, const at::Tensor& dx, bool add = false);
/// Returns the product of the gradient of w: dw = dyᵀ·x.
FloatProduct gradient_of_weights(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& dw);
/// Returns the part of a product that computes rows [begin, end) of y.
FloatProduct rows_of(FloatProduct product, int64_t begin, int64_t end);

}  // namespace fathom::train
