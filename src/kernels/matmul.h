#pragma once

#include <initializer_list>
#include <span>

#include "base/aligned.h"
#include "base/thread_pool.h"
#include "kernels/kernels.h"

namespace fathom {

/// Rows [begin, end).
struct RowRange {
  int64_t begin, end;
};

/// Returns the number of row tiles (of kTileTokens rows) of `rows` rows of activations.
inline int64_t tiles_of(int64_t rows) { return (rows + kTileTokens - 1) / kTileTokens; }

/// Rows of activations, with memory for all forms of ActivationRows. The memory grows as needed and is reused.
class ActivationBuffer {
 public:
  /// Reserves memory for rows × cols floats, to be filled through data(). step_rows: number of leading rows of
  /// decode steps and drafts, whose products do not depend on the other rows.
  void resize(int64_t rows, int64_t cols, int64_t step_rows = 0);
  float* data() { return f32_.data(); }
  const float* data() const { return f32_.data(); }
  float* row(int64_t i) { return f32_.data() + i * cols_; }
  const float* row(int64_t i) const { return f32_.data() + i * cols_; }
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  int64_t step_rows() const { return step_rows_; }

  /// Computes the 8-bit form of the current rows.
  void quantize(ThreadPool& pool, const Kernels& kernels);
  /// Computes `tiles` of ranges of the current rows, and `tiles_low` if `exact`. Each range starts a new tile; its
  /// tiles follow those of the previous range.
  void pack(ThreadPool& pool, const Kernels& kernels, bool exact, std::span<const RowRange> ranges);
  ActivationRows view() const {
    return {rows_,
            cols_,
            f32_.data(),
            q_.data(),
            scale_.data(),
            sum_.data(),
            pair_sum_.data(),
            tiles_.data(),
            tiles_low_.data()};
  }
  /// Returns a view of rows [begin, end), whose tiles, if any, start at tile `first_tile`.
  ActivationRows view(int64_t begin, int64_t end, int64_t first_tile) const;

 private:
  int64_t rows_ = 0, cols_ = 0, step_rows_ = 0;
  AlignedBuffer<float> f32_, scale_, sum_, pair_sum_;
  AlignedBuffer<int8_t> q_;
  AlignedBuffer<uint16_t> tiles_, tiles_low_;
};

/// One of several products with the same activations: y = x·Wᵀ (+ bias); y: [x.rows, w.rows].
struct Product {
  const Matrix* weights;
  float* y;
  std::span<const float> bias = {};  // [w.rows], or empty
};

/// Computes the forms of x that the products need, then the products in one parallel region. The step rows, and all
/// rows if there are at most kMatvecRows others, are multiplied one by one (Kernels::matvec), so that their results
/// do not depend on the number of rows.
void matmul(ThreadPool& pool, const Kernels& kernels, ActivationBuffer& x, std::span<const Product> products);

}  // namespace fathom
