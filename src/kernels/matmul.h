#pragma once

#include <initializer_list>
#include <span>

#include "base/aligned.h"
#include "base/thread_pool.h"
#include "kernels/kernels.h"

namespace fathom {

struct RowRange {
  int64_t begin, end;
};

/// Tiles of so many rows of activations.
inline int64_t tiles_of(int64_t rows) { return (rows + kTileTokens - 1) / kTileTokens; }

/// Activation rows with room for all their forms; grows as needed and is reused.
class ActivationBuffer {
 public:
  /// Room for rows × cols floats, to be filled through data().
  void resize(int64_t rows, int64_t cols);
  float* data() { return f32_.data(); }
  const float* data() const { return f32_.data(); }
  float* row(int64_t i) { return f32_.data() + i * cols_; }
  const float* row(int64_t i) const { return f32_.data() + i * cols_; }
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }

  /// Makes the 8-bit form of the rows as they are now.
  void quantize(ThreadPool& pool, const Kernels& kernels);
  /// Makes the tiles of the rows as they are now, with the low form if `exact`.
  void pack(ThreadPool& pool, const Kernels& kernels, bool exact);
  /// The same of some rows: each range begins with a tile of its own, behind the tiles of those before.
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
  /// Rows [begin, end), whose tiles, if any, begin with tile `first_tile`.
  ActivationRows view(int64_t begin, int64_t end, int64_t first_tile) const;

 private:
  int64_t rows_ = 0, cols_ = 0;
  AlignedBuffer<float> f32_, scale_, sum_, pair_sum_;
  AlignedBuffer<int8_t> q_;
  AlignedBuffer<uint16_t> tiles_, tiles_low_;
};

/// One product of several that share their activations: y = x·Wᵀ (+ bias); y: [x.rows, w.rows].
struct Product {
  const Matrix* weights;
  float* y;
  std::span<const float> bias = {};  // [w.rows], or empty
};

/// Computes the products in one parallel region; first makes the forms of x that they need.
void matmul(ThreadPool& pool, const Kernels& kernels, ActivationBuffer& x, std::span<const Product> products);

}  // namespace fathom
