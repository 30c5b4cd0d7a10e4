// Code shared by the matmuls of all weight types: panels of weight rows and the loops around a micro-kernel.
// Included inside Highway's target loop.
#if defined(FATHOM_PANELS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_PANELS_INL
#undef FATHOM_PANELS_INL
#else
#define FATHOM_PANELS_INL
#endif

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "kernels/lanes-inl.h"

#if FATHOM_VECTOR_TARGET
HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

// Rows of activations that a micro-kernel holds in registers: two vectors of sums each, and twice that for integers
// (32 registers; 16 for AVX2).
#if HWY_TARGET == HWY_AVX3_DL || HWY_TARGET == HWY_AVX3
constexpr int kMicroRows = 6;
#else
constexpr int kMicroRows = 3;
#endif
constexpr int kMaxPanelRows = 32;  // two vectors of 16 lanes

/// Returns the index of a column in a row of 8-bit activations. For a column k that begins a group and an offset o
/// in the group, ActivationAt(k + o) = ActivationAt(k) + ActivationAt(o).
HWY_INLINE int64_t ActivationAt(int64_t column) {
  return HWY_MAX_BYTES == 64 ? interleaved_column(column) : column;
}

/// LoadSums and StoreSums load and store the sums of a micro-kernel, kRows rows of activations by one panel of two
/// vectors, at y[i, 0 … panel rows). If `first`, LoadSums returns zeros.
template <int kRows>
HWY_INLINE void LoadSums(bool first, const float* HWY_RESTRICT y, int64_t stride, FloatVec (&sums)[kRows][2]) {
  const FloatTag d;
  FATHOM_UNROLL
  for (int i = 0; i < kRows; ++i) {
    FATHOM_UNROLL
    for (int j = 0; j < 2; ++j) sums[i][j] = first ? hn::Zero(d) : hn::LoadU(d, y + i * stride + j * Lanes());
  }
}
template <int kRows>
HWY_INLINE void StoreSums(const FloatVec (&sums)[kRows][2], float* HWY_RESTRICT y, int64_t stride) {
  FATHOM_UNROLL
  for (int i = 0; i < kRows; ++i) {
    FATHOM_UNROLL
    for (int j = 0; j < 2; ++j) hn::StoreU(sums[i][j], FloatTag(), y + i * stride + j * Lanes());
  }
}

/// Calls micro(std::integral_constant<int, R>) with R = rows, 1 ≤ rows ≤ kRows.
template <int kRows = kMicroRows, class Micro>
HWY_INLINE void WithRows(int64_t rows, const Micro& micro) {
  if constexpr (kRows > 0) {
    if (rows == kRows) {
      micro(std::integral_constant<int, kRows>());
    } else {
      WithRows<kRows - 1>(rows, micro);
    }
  }
}

/// Loops over panels, blocks of columns and blocks of rows of activations. `pack(first, rows, column, n)` fills a
/// panel; `multiply(row, rows, column, n, y, stride)` stores its products in y, or adds them if column > 0.
template <class Pack, class Multiply>
HWY_INLINE void ForPanels(const Matrix& w, int64_t begin, int64_t end, int64_t x_rows, float* y, int64_t y_stride,
                          int64_t columns, const Pack& pack, const Multiply& multiply) {
  const int64_t panel_rows = 2 * Lanes();
  for (int64_t first = begin; first < end; first += panel_rows) {
    const int64_t rows = std::min(panel_rows, end - first);
    for (int64_t column = 0; column < w.cols; column += columns) {
      const int64_t n = std::min(columns, w.cols - column);
      pack(first, rows, column, n);
      for (int64_t i = 0; i < x_rows; i += kMicroRows) {
        const int64_t block = std::min<int64_t>(kMicroRows, x_rows - i);
        if (rows == panel_rows) {
          multiply(i, block, column, n, y + i * y_stride + first, y_stride);
          continue;
        }
        float edge[kMicroRows * kMaxPanelRows] = {};  // the last panel may be narrower than the vectors
        for (int64_t b = 0; column > 0 && b < block; ++b)
          std::copy_n(y + (i + b) * y_stride + first, rows, edge + b * kMaxPanelRows);
        multiply(i, block, column, n, edge, kMaxPanelRows);
        for (int64_t b = 0; b < block; ++b)
          std::copy_n(edge + b * kMaxPanelRows, rows, y + (i + b) * y_stride + first);
      }
    }
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();
#endif

#endif
