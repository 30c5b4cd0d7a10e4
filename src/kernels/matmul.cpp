#include "kernels/matmul.h"

#include <algorithm>
#include <cassert>
#include <vector>

namespace fathom {
namespace {

/// Tasks per thread: enough for an even finish on a busy machine, few enough that handing them out costs nothing.
constexpr int64_t kTasksPerThread = 8;

struct Piece {
  const Product* product;
  int64_t begin, end;
};

}  // namespace

void ActivationBuffer::resize(int64_t rows, int64_t cols) {
  rows_ = rows;
  cols_ = cols;
  f32_.reserve(rows * cols);
}

void ActivationBuffer::quantize(ThreadPool& pool, const Kernels& kernels) {
  const int64_t padded = padded_columns(cols_);
  q_.reserve(rows_ * padded);
  scale_.reserve(rows_ * padded / 16);
  sum_.reserve(rows_ * padded / 16);
  pool.parallel_for(rows_, [&](size_t i, int) {
    const int64_t at = static_cast<int64_t>(i) * padded;
    kernels.quantize_activations(row(i), cols_, q_.data() + at, scale_.data() + at / 16, sum_.data() + at / 16);
  });
}

void matmul(ThreadPool& pool, const Kernels& kernels, ActivationBuffer& x, std::span<const Product> products) {
  int64_t total_rows = 0;
  bool quantised = false;
  for (const Product& p : products) {
    assert(p.weights->cols == x.cols());
    total_rows += p.weights->rows;
    quantised |= !is_float(p.weights->type);
  }
  if (quantised) x.quantize(pool, kernels);
  const bool few = x.rows() <= kMatvecRows;
  // The division into pieces depends on the threads, what is computed for a row does not.
  const int64_t wanted = std::max<int64_t>(1, total_rows / (pool.threads() * kTasksPerThread));
  const int64_t step = (wanted + kernels.panel_rows - 1) / kernels.panel_rows * kernels.panel_rows;
  std::vector<Piece> pieces;
  for (const Product& p : products) {
    for (int64_t r = 0; r < p.weights->rows; r += step)
      pieces.push_back({&p, r, std::min(r + step, p.weights->rows)});
  }
  const ActivationRows rows = x.view();
  pool.parallel_for(pieces.size(), [&](size_t i, int) {
    const Piece& piece = pieces[i];
    const Matrix& w = *piece.product->weights;
    float* y = piece.product->y;
    (few ? kernels.matvec : kernels.matmul)(w, piece.begin, piece.end, rows, y, w.rows);
    if (piece.product->bias.empty()) return;
    for (int64_t r = 0; r < rows.rows; ++r)
      kernels.add(y + r * w.rows + piece.begin, piece.product->bias.data() + piece.begin, piece.end - piece.begin);
  });
}

}  // namespace fathom
