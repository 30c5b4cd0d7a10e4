#include "train/fused_products.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <malloc.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "base/aligned.h"

namespace fathom::train {
namespace {

constexpr int64_t kRowsOfTask = 32;  // rows of a task of for_rows
constexpr int64_t kRowsOfTile = 12;  // height of a tile of the widest kernels

/// Makes malloc keep the memory that a step frees. Returning it to the system and faulting it in again costs more
/// time than using it.
void keep_freed_memory() {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
#endif
}

}  // namespace

ThreadPool& training_pool() {
  static ThreadPool pool = [] {
    keep_freed_memory();
    return ThreadPool(at::get_num_threads());
  }();
  return pool;
}

void for_parts(int64_t rows, int64_t rows_of_part, const std::function<void(int64_t, int64_t)>& f) {
  training_pool().parallel_for((rows + rows_of_part - 1) / rows_of_part, [&](size_t part, int) {
    const int64_t begin = static_cast<int64_t>(part) * rows_of_part;
    f(begin, std::min(begin + rows_of_part, rows));
  });
}

void for_rows(int64_t rows, const std::function<void(int64_t)>& f) {
  for_parts(rows, kRowsOfTask, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) f(row);
  });
}

bool has_products_of(Factors factors) { return factors == Factors::kF32 || kernels().multiply_bf16; }

void multiply(Factors factors, const FloatProduct& product) {
  thread_local AlignedBuffer<float> scratch(kMultiplyScratch);
  (factors == Factors::kBF16 ? kernels().multiply_bf16 : kernels().multiply)(product, scratch.data());
}

void multiply_all(Factors factors, std::span<const FloatProduct> products) {
  int64_t rows = 0;
  for (const FloatProduct& product : products) rows += product.rows;
  const int64_t threads = training_pool().threads(), share = (rows + threads - 1) / threads;
  const int64_t part_rows = std::min((share + kRowsOfTile - 1) / kRowsOfTile * kRowsOfTile, kRowsOfPart);
  std::vector<FloatProduct> parts;
  for (const FloatProduct& product : products) {
    for (int64_t begin = 0; begin < product.rows; begin += part_rows) {
      parts.push_back(rows_of(product, begin, std::min(begin + part_rows, product.rows)));
    }
  }
  training_pool().parallel_for(parts.size(), [&](size_t part, int) { multiply(factors, parts[part]); });
}

FloatProduct product_of(const at::Tensor& x, const at::Tensor& w, const at::Tensor& y, bool add) {
  const int64_t rows = x.size(0), cols = x.size(1), outputs = w.size(0);
  return {rows, outputs, cols, floats(x), cols, false, floats(w), cols, true, floats(y), outputs, add};
}

FloatProduct gradient_of_rows(const at::Tensor& dy, const at::Tensor& w, const at::Tensor& dx, bool add) {
  const int64_t rows = dy.size(0), cols = w.size(1), outputs = w.size(0);
  return {rows, cols, outputs, floats(dy), outputs, false, floats(w), cols, false, floats(dx), cols, add};
}

FloatProduct gradient_of_weights(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& dw) {
  const int64_t rows = dy.size(0), cols = x.size(1), outputs = dy.size(1);
  return {outputs, cols, rows, floats(dy), outputs, true, floats(x), cols, false, floats(dw), cols, false};
}

FloatProduct rows_of(FloatProduct product, int64_t begin, int64_t end) {
  product.rows = end - begin;
  product.a += begin * (product.a_transposed ? 1 : product.a_stride);
  product.y += begin * product.y_stride;
  return product;
}

}  // namespace fathom::train
