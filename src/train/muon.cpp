#include "train/muon.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "train/fused_products.h"

namespace fathom::train {
namespace {

/// Computes y = s·x + t·y.
void blend(float s, std::span<const float> x, float t, std::span<float> y) {
  for (size_t i = 0; i < y.size(); ++i) y[i] = s * x[i] + t * y[i];
}

/// Replaces y by a·y + (b·S + c·S²)·y with S = y·yᵀ if rows ≤ cols, otherwise by a·y + y·(b·S + c·S²) with S =
/// yᵀ·y.
void iterate(int64_t rows, int64_t cols, std::vector<float>& square, std::vector<float>& polynomial,
             std::vector<float>& moved, std::span<float> y) {
  const bool tall = rows > cols;
  const int64_t side = std::min(rows, cols);
  multiply(Factors::kF32, {.rows = side,
                           .cols = side,
                           .depth = std::max(rows, cols),
                           .a = y.data(),
                           .a_stride = cols,
                           .a_transposed = tall,
                           .b = y.data(),
                           .b_stride = cols,
                           .b_transposed = !tall,
                           .y = square.data(),
                           .y_stride = side});
  multiply(Factors::kF32, {.rows = side,
                           .cols = side,
                           .depth = side,
                           .a = square.data(),
                           .a_stride = side,
                           .b = square.data(),
                           .b_stride = side,
                           .y = polynomial.data(),
                           .y_stride = side});
  blend(static_cast<float>(kMuonB), square, static_cast<float>(kMuonC), polynomial);
  const float* left = tall ? y.data() : polynomial.data();
  const float* right = tall ? polynomial.data() : y.data();
  multiply(Factors::kF32, {.rows = rows,
                           .cols = cols,
                           .depth = side,
                           .a = left,
                           .a_stride = tall ? cols : side,
                           .b = right,
                           .b_stride = cols,
                           .y = moved.data(),
                           .y_stride = cols});
  blend(1.0f, moved, static_cast<float>(kMuonA), y);
}

void step(const MuonMatrix& m, double learning_rate, double gradient_scale, const MuonOptions& options) {
  const int64_t count = m.rows * m.cols;
  const auto kept = static_cast<float>(options.momentum), scale = static_cast<float>(gradient_scale);
  std::vector<float> ahead(count);
  for (int64_t i = 0; i < count; ++i) {
    const float g = m.gradient[i] * scale;
    m.momentum[i] = kept * m.momentum[i] + g;
    ahead[i] = kept * m.momentum[i] + g;
  }
  orthogonalise(m.rows, m.cols, ahead.data());
  blend(static_cast<float>(-learning_rate * muon_scale(m.rows, m.cols)), ahead,
        static_cast<float>(1 - learning_rate * options.weight_decay), {m.values, static_cast<size_t>(count)});
}

}  // namespace

double muon_scale(int64_t rows, int64_t cols) { return 0.2 * std::sqrt(static_cast<double>(std::max(rows, cols))); }

void orthogonalise(int64_t rows, int64_t cols, float* x) {
  const std::span<float> y(x, rows * cols);
  double squares = 0;
  for (const float value : y) squares += double{value} * value;
  const auto scale = static_cast<float>(1 / (std::sqrt(squares) + 1e-7));
  for (float& value : y) value *= scale;
  const int64_t side = std::min(rows, cols);
  std::vector<float> square(side * side), polynomial(side * side), moved(rows * cols);
  for (int i = 0; i < kMuonSteps; ++i) iterate(rows, cols, square, polynomial, moved, y);
}

void muon_step(std::span<const MuonMatrix> matrices, double learning_rate, double gradient_scale,
               const MuonOptions& options) {
  for_parts(std::ssize(matrices), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) step(matrices[i], learning_rate, gradient_scale, options);
  });
}

}  // namespace fathom::train
