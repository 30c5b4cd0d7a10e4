#include "train/fused_products.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstring>

#include "kernels/matmul.h"

namespace fathom {
namespace {

constexpr int64_t kRowsOfTask = 32;  // taken at once by a thread
constexpr int64_t kBlock = 16;       // rows and columns that are turned while they are in L1

}  // namespace

ThreadPool& training_pool() {
  static ThreadPool pool(at::get_num_threads());
  return pool;
}

void for_rows(int64_t rows, const std::function<void(int64_t)>& f) {
  training_pool().parallel_for((rows + kRowsOfTask - 1) / kRowsOfTask, [&](size_t task, int) {
    const int64_t begin = static_cast<int64_t>(task) * kRowsOfTask;
    for (int64_t row = begin; row < std::min(begin + kRowsOfTask, rows); ++row) f(row);
  });
}

at::Tensor product(const at::Tensor& a, const at::Tensor& b) {
  static ActivationBuffer rows;  // the thread that trains is one
  const int64_t n = a.size(0), k = a.size(1), m = b.size(0);
  at::Tensor y = at::empty({n, m}, a.options());
  rows.resize(n, k);
  const float* from = floats(a);
  for_rows(n, [&](int64_t i) { std::memcpy(rows.row(i), from + i * k, k * sizeof(float)); });
  const Matrix weights{WeightType::kF32, reinterpret_cast<const std::byte*>(floats(b)), m, k};
  const Product products[] = {{&weights, floats(y)}};
  matmul(training_pool(), kernels(), rows, products);
  return y;
}

at::Tensor transposed(const at::Tensor& x) {
  const int64_t n = x.size(0), m = x.size(1);
  const at::Tensor rows = x.contiguous();
  at::Tensor columns = at::empty({m, n}, x.options());
  const float* from = floats(rows);
  float* to = floats(columns);
  training_pool().parallel_for((m + kBlock - 1) / kBlock, [&](size_t block, int) {
    const int64_t first = static_cast<int64_t>(block) * kBlock, last = std::min(first + kBlock, m);
    for (int64_t i = 0; i < n; i += kBlock) {
      const int64_t end = std::min(i + kBlock, n);
      for (int64_t j = first; j < last; ++j) {
        for (int64_t r = i; r < end; ++r) to[j * n + r] = from[r * m + j];
      }
    }
  });
  return columns;
}

}  // namespace fathom
