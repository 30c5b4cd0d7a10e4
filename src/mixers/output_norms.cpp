#include "mixers/output_norms.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/aligned.h"
#include "kernels/quantize.h"

namespace fathom {
namespace {

constexpr int64_t kBlockRows = 128;  // rows of the projection unpacked at a time: 2 MB at a width of 4,096

/// Adds the contribution of rows [begin, end) of the projection W, the sums of |W v|, to sums: [kv_heads, rows].
void add_block(const OutputShape& shape, int64_t begin, int64_t end, int64_t rows, const float* values,
               const Kernels& kernels, float* sums) {
  const Matrix& w = *shape.projection;
  std::vector<float> weights((end - begin) * w.cols), projected(rows * (end - begin));
  for (int64_t r = begin; r < end; ++r)
    dequantize_row(w.type, w.row(r), weights.data() + (r - begin) * w.cols, w.cols);
  AlignedBuffer<float> scratch(kMultiplyScratch);
  const int group = shape.heads / shape.kv_heads;
  for (int head = 0; head < shape.heads; ++head) {
    FloatProduct product;
    product.rows = end - begin;
    product.cols = rows;
    product.depth = shape.value_dim;
    product.a = weights.data() + static_cast<int64_t>(head) * shape.value_dim;
    product.a_stride = w.cols;
    product.b = values + head / group * rows * shape.value_dim;
    product.b_stride = shape.value_dim;
    product.b_transposed = true;
    product.y = projected.data();
    product.y_stride = rows;
    kernels.multiply(product, scratch.data());
    float* own = sums + head / group * rows;
    for (int64_t r = 0; r < end - begin; ++r)
      for (int64_t i = 0; i < rows; ++i) own[i] += std::fabs(projected[r * rows + i]);
  }
}

}  // namespace

void output_norms(const OutputShape& shape, int64_t rows, const float* values, float* norms, ThreadPool& pool,
                  const Kernels& kernels) {
  const int64_t width = shape.projection->rows, blocks = (width + kBlockRows - 1) / kBlockRows;
  const int64_t count = shape.kv_heads * rows;
  std::vector<float> sums(blocks * count);  // per block, so that the order of addition does not depend on threads
  pool.parallel_for(blocks, [&](size_t b, int) {
    const int64_t begin = static_cast<int64_t>(b) * kBlockRows;
    add_block(shape, begin, std::min(begin + kBlockRows, width), rows, values, kernels, sums.data() + b * count);
  });
  std::fill_n(norms, count, 0.0f);
  for (int64_t b = 0; b < blocks; ++b) kernels.add(norms, sums.data() + b * count, count);
  kernels.scale(norms, static_cast<float>(shape.kv_heads) / static_cast<float>(shape.heads), count);
}

}  // namespace fathom
