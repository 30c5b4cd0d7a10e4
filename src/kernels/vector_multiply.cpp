// Products of float matrices for training, transposed or not, once per instruction set.
#include "kernels/vector.h"

#include <algorithm>

// Highway requires this order: the target loop first, then what it compiles once per target.
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/vector_multiply.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/panels-inl.h"
#include "kernels/transpose-inl.h"
// clang-format on

#if FATHOM_VECTOR_TARGET
HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

// Rows of a that a micro-kernel multiplies with two vectors of b: the sums, two vectors of b and one number of a
// fit the registers (32 or 16).
#if HWY_TARGET == HWY_AVX3_DL || HWY_TARGET == HWY_AVX3
constexpr int kRowsOfTile = 12;
#else
constexpr int kRowsOfTile = 6;
#endif
// b is packed in blocks of kDepth by kColumns (512 KiB, a part of L2), which all rows of a are multiplied with; a
// tile's rows of a then stay in L1. kPackedRows rows of a transposed a are packed at once, so that whole cache
// lines of its stored rows are read.
constexpr int64_t kDepth = 256;
constexpr int64_t kColumns = 512;
constexpr int64_t kPackedRows = 96;
static_assert(kDepth * (kColumns + kPackedRows) <= kMultiplyScratch && kPackedRows % kRowsOfTile == 0);

/// y[kRows, two vectors] += a·panel. panel: [depth, two vectors]; a[i, k] at a[i·stride + k], or in packed rows of
/// kRows at a[k·kRows + i].
template <int kRows, bool kPacked>
HWY_NOINLINE void MultiplyTile(const float* HWY_RESTRICT a, int64_t stride, const float* HWY_RESTRICT panel,
                               int64_t depth, bool first, float* HWY_RESTRICT y, int64_t y_stride) {
  const FloatTag d;
  FloatVec total[kRows][2];
  LoadSums(first, y, y_stride, total);
  constexpr int kGroups = (kRows + 2) / 3;
  const float* group[kGroups];  // a pointer per three rows: more pointers would not fit into registers
  for (int g = 0; g < kGroups; ++g) group[g] = a + 3 * g * stride;
  for (int64_t k = 0; k < depth; ++k) {
    const FloatVec b0 = hn::Load(d, panel), b1 = hn::Load(d, panel + Lanes());
    panel += 2 * Lanes();
    FATHOM_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const FloatVec v = hn::Set(d, kPacked ? a[i] : group[i / 3][i % 3 * stride]);
      total[i][0] = hn::MulAdd(b0, v, total[i][0]);
      total[i][1] = hn::MulAdd(b1, v, total[i][1]);
    }
    if constexpr (kPacked) {
      a += kRows;
    } else {
      FATHOM_UNROLL
      for (int g = 0; g < kGroups; ++g) ++group[g];
    }
  }
  StoreSums(total, y, y_stride);
}

/// to[k, c] = from[c, k] for c < columns, 0 beyond up to the panel's width.
HWY_INLINE void PackTransposed(const float* from, int64_t stride, int64_t columns, int64_t depth, float* to) {
  const int64_t width = 2 * Lanes();
  int64_t whole = 0;
#if HWY_TARGET == HWY_AVX3_DL
  if (columns == width) {
    for (; whole + 16 <= depth; whole += 16) {
      for (int half = 0; half < 2; ++half) {
        __m512i block[16];
        FATHOM_UNROLL
        for (int c = 0; c < 16; ++c) block[c] = _mm512_loadu_si512(from + (16 * half + c) * stride + whole);
        Transpose(block);
        FATHOM_UNROLL
        for (int k = 0; k < 16; ++k) _mm512_store_si512(to + (whole + k) * width + 16 * half, block[k]);
      }
    }
  }
#endif
  for (int64_t k = whole; k < depth; ++k) {
    for (int64_t c = 0; c < width; ++c) to[k * width + c] = c < columns ? from[c * stride + k] : 0.0f;
  }
}

/// to[k, c] = from[k, c] for c < columns, 0 beyond up to the panel's width.
HWY_INLINE void PackRows(const float* from, int64_t stride, int64_t columns, int64_t depth, float* to) {
  const FloatTag d;
  const int64_t width = 2 * Lanes();
  for (int64_t k = 0; k < depth; ++k) {
    if (columns == width) {
      hn::Store(hn::LoadU(d, from + k * stride), d, to + k * width);
      hn::Store(hn::LoadU(d, from + k * stride + Lanes()), d, to + k * width + Lanes());
    } else {
      for (int64_t c = 0; c < width; ++c) to[k * width + c] = c < columns ? from[k * stride + c] : 0.0f;
    }
  }
}

/// Packs the block of b at (k, column) as panels of two vectors: [panels, depth, two vectors].
void PackBlock(const FloatProduct& p, int64_t k, int64_t depth, int64_t column, int64_t columns, float* to) {
  const int64_t width = 2 * Lanes();
  for (int64_t c = 0; c < columns; c += width, to += depth * width) {
    const int64_t count = std::min(width, columns - c);
    if (p.b_transposed) {
      PackTransposed(p.b + (column + c) * p.b_stride + k, p.b_stride, count, depth, to);
    } else {
      PackRows(p.b + k * p.b_stride + column + c, p.b_stride, count, depth, to);
    }
  }
}

/// to[tile, k, i] = rows [row, row + rows) of a transposed a, in tiles of kRowsOfTile; the last one may be
/// narrower.
void PackTransposedRows(const FloatProduct& p, int64_t row, int64_t rows, int64_t k, int64_t depth, float* to) {
  const int64_t whole = rows / kRowsOfTile * kRowsOfTile;
  for (int64_t i = 0; i < depth; ++i) {
    const float* from = p.a + (k + i) * p.a_stride + row;
    float* out = to + i * kRowsOfTile;
    for (int64_t r = 0; r < whole; r += kRowsOfTile, out += depth * kRowsOfTile) {
      for (int j = 0; j < kRowsOfTile; ++j) out[j] = from[r + j];
    }
    std::copy_n(from + whole, rows - whole, to + depth * whole + i * (rows - whole));
  }
}

/// A block of a product: `depth` terms of the sums of `columns` columns.
struct ProductBlock {
  int64_t k, depth, column, columns;
  const float* panels;  // packed columns of b
  bool first;           // y is overwritten, not added to
};

/// Computes kRows rows of y in a block. `packed` holds the rows of a, or is null if they are read from p.a.
template <int kRows>
void MultiplyRows(const FloatProduct& p, const ProductBlock& block, int64_t row, const float* packed) {
  const int64_t width = 2 * Lanes();
  const float* rows = p.a + row * p.a_stride + block.k;
  const auto tile = [&](const float* panel, float* out, int64_t stride) {
    if (packed) {
      MultiplyTile<kRows, true>(packed, 0, panel, block.depth, block.first, out, stride);
    } else {
      MultiplyTile<kRows, false>(rows, p.a_stride, panel, block.depth, block.first, out, stride);
    }
  };
  float* y = p.y + row * p.y_stride + block.column;
  const float* panel = block.panels;
  int64_t c = 0;
  for (; c + width <= block.columns; c += width, panel += block.depth * width) tile(panel, y + c, p.y_stride);
  const int64_t rest = block.columns - c;
  if (rest == 0) return;
  alignas(64) float edge[kRows * kMaxPanelRows] = {};  // the last panel may be narrower than the vectors
  for (int i = 0; i < kRows; ++i) std::copy_n(y + i * p.y_stride + c, block.first ? 0 : rest, edge + i * width);
  tile(panel, edge, width);
  for (int i = 0; i < kRows; ++i) std::copy_n(edge + i * width, rest, y + i * p.y_stride + c);
}

void MultiplyBlock(const FloatProduct& p, const ProductBlock& block, float* scratch) {
  for (int64_t first = 0; first < p.rows; first += kPackedRows) {
    const int64_t count = std::min(kPackedRows, p.rows - first);
    if (p.a_transposed) PackTransposedRows(p, first, count, block.k, block.depth, scratch);
    for (int64_t i = 0; i < count; i += kRowsOfTile) {
      const float* packed = p.a_transposed ? scratch + i * block.depth : nullptr;
      WithRows<kRowsOfTile>(std::min<int64_t>(kRowsOfTile, count - i),
                            [&](auto rows) { MultiplyRows<decltype(rows)::value>(p, block, first + i, packed); });
    }
  }
}

void Multiply(const FloatProduct& p, float* scratch) {
  for (int64_t column = 0; column < p.cols; column += kColumns) {
    const int64_t columns = std::min(kColumns, p.cols - column);
    for (int64_t k = 0; k < p.depth; k += kDepth) {
      const int64_t depth = std::min(kDepth, p.depth - k);
      PackBlock(p, k, depth, column, columns, scratch);
      MultiplyBlock(p, {k, depth, column, columns, scratch, k == 0 && !p.add}, scratch + kDepth * kColumns);
    }
  }
}

void FillMultiply(Kernels& table) { table.multiply = Multiply; }

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();
#else
namespace fathom::HWY_NAMESPACE {
void FillMultiply(Kernels& /*table*/) {}  // no vector target: kernels() does not list this table
}  // namespace fathom::HWY_NAMESPACE
#endif

#if HWY_ONCE
namespace fathom {
HWY_EXPORT(FillMultiply);
void fill_vector_multiply(Kernels& table) { HWY_DYNAMIC_DISPATCH(FillMultiply)(table); }
}  // namespace fathom
#endif
