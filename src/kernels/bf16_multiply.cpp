// Products of float matrices whose factors are rounded to bfloat16, for processors that multiply pairs of such
// numbers at once (AVX512-BF16): twice the rate of floats. Packing rounds the factors and interleaves pairs of
// consecutive depths; sums are float.
#include "kernels/vector.h"

#include <algorithm>

// Highway requires this order: the target loop first, then what it compiles once per target.
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/bf16_multiply.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/panels-inl.h"
#include "kernels/transpose-inl.h"
// clang-format on

// Compiled only for AVX-512 targets: processors with the instruction have all of AVX-512.
#if HWY_TARGET == HWY_AVX3_DL
HWY_BEFORE_NAMESPACE();
#pragma GCC push_options
#pragma GCC target("avx512bf16")
namespace fathom {
namespace HWY_NAMESPACE {
namespace {

constexpr int kTileRows = 12;  // times two vectors of b: the sums, b and a number of a fill 27 of 32 registers
constexpr int64_t kPanelWidth = 32;  // columns: two vectors

// b is packed in blocks of kDepth by kColumns (512 KiB, a part of L2), which all rows of a are multiplied with; a
// tile's rows of a (12 KiB) then stay in L1. kPackedRows rows of a transposed a are packed at once, so that whole
// cache lines of its stored rows are read.
constexpr int64_t kDepth = 512;
constexpr int64_t kPairs = kDepth / 2;
constexpr int64_t kColumns = 512;
constexpr int64_t kPackedRows = 96;
constexpr int64_t kPrefetchDistance = 16;  // rows of b between prefetch and packing; b is read from main memory
static_assert(kPairs * (kColumns + kPackedRows) <= kMultiplyScratch && kPackedRows % kTileRows == 0);

/// Returns the mask of the first n of 16 lanes; n may be any number.
HWY_INLINE __mmask16 FirstLanes(int64_t n) {
  return static_cast<__mmask16>((1u << std::clamp<int64_t>(n, 0, 16)) - 1);
}

/// Returns pairs (first[i], second[i]) in the lanes of the masks, 0 in others.
HWY_INLINE __m512i PairsOfRows(const float* first, __mmask16 first_lanes, const float* second,
                               __mmask16 second_lanes) {
  const __m512bh rows =
      _mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(second_lanes, second), _mm512_maskz_loadu_ps(first_lanes, first));
  return _mm512_permutexvar_epi16(_mm512_load_si512(kInterleave), reinterpret_cast<__m512i>(rows));
}

/// Returns the first n of 32 adjacent numbers as 16 pairs, 0 beyond.
HWY_INLINE __m512i PairsOfRow(const float* from, int64_t n) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(FirstLanes(n - 16), from + 16),
                                                       _mm512_maskz_loadu_ps(FirstLanes(n), from)));
}

/// to[pair, c] = (from[2·pair, c], from[2·pair + 1, c]) for c < columns, 0 beyond up to the panel's width.
void PackRows(const float* from, int64_t stride, int64_t columns, int64_t depth, uint32_t* to) {
  for (int64_t k = 0; k < depth; k += 2, to += kPanelWidth) {
    const float *first = from + k * stride, *second = k + 1 < depth ? first + stride : first;
    for (int64_t c = 0; c < kPanelWidth; c += 16) {
      _mm_prefetch(first + c + kPrefetchDistance * stride, _MM_HINT_T0);
      _mm_prefetch(second + c + kPrefetchDistance * stride, _MM_HINT_T0);
      const __mmask16 lanes = FirstLanes(columns - c), second_lanes = k + 1 < depth ? lanes : __mmask16{0};
      _mm512_store_si512(to + c, PairsOfRows(first + c, lanes, second + c, second_lanes));
    }
  }
}

/// to[pair, c] = (from[c, 2·pair], from[c, 2·pair + 1]), padded in the same way.
void PackTransposed(const float* from, int64_t stride, int64_t columns, int64_t depth, uint32_t* to) {
  for (int64_t k = 0; k < depth; k += 32) {
    const int64_t pairs = std::min<int64_t>(16, (depth - k + 1) / 2);
    for (int64_t c = 0; c < kPanelWidth; c += 16) {
      __m512i block[16];
      FATHOM_UNROLL
      for (int i = 0; i < 16; ++i) {
        block[i] = c + i < columns ? PairsOfRow(from + (c + i) * stride + k, depth - k) : _mm512_setzero_si512();
      }
      Transpose(block);
      uint32_t* out = to + k / 2 * kPanelWidth + c;
      if (pairs == 16) {
        FATHOM_UNROLL
        for (int i = 0; i < 16; ++i) _mm512_store_si512(out + i * kPanelWidth, block[i]);
      } else {
        for (int64_t i = 0; i < pairs; ++i) _mm512_store_si512(out + i * kPanelWidth, block[i]);
      }
    }
  }
}

/// A block of a product: `depth` terms of the sums of `columns` columns.
struct Bf16ProductBlock {
  int64_t k, depth, column, columns;
  const uint32_t* panels;  // packed columns of b: [panels, pairs, kPanelWidth]
  bool first;              // y is overwritten, not added to

  int64_t pairs() const { return (depth + 1) / 2; }
};

void PackBlock(const FloatProduct& p, const Bf16ProductBlock& block, uint32_t* to) {
  for (int64_t c = 0; c < block.columns; c += kPanelWidth, to += block.pairs() * kPanelWidth) {
    const int64_t column = block.column + c, count = std::min(kPanelWidth, block.columns - c);
    if (p.b_transposed) {
      PackTransposed(p.b + column * p.b_stride + block.k, p.b_stride, count, block.depth, to);
    } else {
      PackRows(p.b + block.k * p.b_stride + column, p.b_stride, count, block.depth, to);
    }
  }
}

/// to[i, pair] = pairs of the rows of a tile, in rows of kPairs. Prefetches the rows of the next tile.
void PackTile(const FloatProduct& p, const Bf16ProductBlock& block, int64_t row, int64_t rows, uint32_t* to) {
  for (int64_t i = 0; i < rows; ++i, to += kPairs) {
    const float *from = p.a + (row + i) * p.a_stride + block.k, *next = from + kTileRows * p.a_stride;
    int64_t k = 0;
    for (; k + 32 <= block.depth; k += 32) {
      _mm_prefetch(next + k, _MM_HINT_T0);
      _mm_prefetch(next + k + 16, _MM_HINT_T0);
      _mm512_store_si512(to + k / 2, PairsOfRow(from + k, 32));
    }
    if (k < block.depth) _mm512_store_si512(to + k / 2, PairsOfRow(from + k, block.depth - k));
  }
}

/// to[tile, pair, i] = pairs of the rows [row, row + rows) of a transposed a, in tiles of kTileRows.
void PackTransposedTiles(const FloatProduct& p, const Bf16ProductBlock& block, int64_t row, int64_t rows,
                         uint32_t* to) {
  for (int64_t k = 0; k < block.depth; k += 2, to += kTileRows) {
    const bool both = k + 1 < block.depth;
    const float *first = p.a + (block.k + k) * p.a_stride + row, *second = both ? first + p.a_stride : first;
    uint32_t* out = to;
    for (int64_t i = 0; i < rows; i += kTileRows, out += block.pairs() * kTileRows) {
      const __mmask16 lanes = FirstLanes(std::min<int64_t>(kTileRows, rows - i));
      _mm512_mask_storeu_epi32(out, FirstLanes(kTileRows),
                               PairsOfRows(first + i, lanes, second + i, both ? lanes : __mmask16{0}));
    }
  }
}

/// y[kRows, columns] += a·panel. a[i, pair] at a[i·kPairs + pair], or transposed: at a[pair·kTileRows + i].
template <int kRows, bool kTransposed>
HWY_NOINLINE void MultiplyTile(const uint32_t* HWY_RESTRICT a, const uint32_t* HWY_RESTRICT panel, int64_t pairs,
                               bool first, float* HWY_RESTRICT y, int64_t stride, int64_t columns) {
  const __mmask16 lanes[2] = {FirstLanes(columns), FirstLanes(columns - 16)};
  __m512 sums[kRows][2];
  FATHOM_UNROLL
  for (int i = 0; i < kRows; ++i) {
    FATHOM_UNROLL
    for (int j = 0; j < 2; ++j) {
      sums[i][j] = first ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(lanes[j], y + i * stride + 16 * j);
    }
  }
  for (int64_t pair = 0; pair < pairs; ++pair, panel += kPanelWidth) {
    const auto b0 = reinterpret_cast<__m512bh>(_mm512_load_si512(panel));
    const auto b1 = reinterpret_cast<__m512bh>(_mm512_load_si512(panel + 16));
    FATHOM_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const auto v =
          reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(a[kTransposed ? i : i * kPairs])));
      sums[i][0] = _mm512_dpbf16_ps(sums[i][0], v, b0);
      sums[i][1] = _mm512_dpbf16_ps(sums[i][1], v, b1);
    }
    a += kTransposed ? kTileRows : 1;
  }
  FATHOM_UNROLL
  for (int i = 0; i < kRows; ++i) {
    FATHOM_UNROLL
    for (int j = 0; j < 2; ++j) _mm512_mask_storeu_ps(y + i * stride + 16 * j, lanes[j], sums[i][j]);
  }
}

/// Computes kRows rows of y in a block; `tile` holds their rows of a.
template <int kRows>
void MultiplyRows(const FloatProduct& p, const Bf16ProductBlock& block, int64_t row, const uint32_t* tile) {
  float* y = p.y + row * p.y_stride + block.column;
  const uint32_t* panel = block.panels;
  for (int64_t c = 0; c < block.columns; c += kPanelWidth, panel += block.pairs() * kPanelWidth) {
    const auto multiply = p.a_transposed ? MultiplyTile<kRows, true> : MultiplyTile<kRows, false>;
    multiply(tile, panel, block.pairs(), block.first, y + c, p.y_stride, block.columns - c);
  }
}

void MultiplyBlock(const FloatProduct& p, const Bf16ProductBlock& block, uint32_t* scratch) {
  for (int64_t first = 0; first < p.rows; first += kPackedRows) {
    const int64_t count = std::min(kPackedRows, p.rows - first);
    if (p.a_transposed) PackTransposedTiles(p, block, first, count, scratch);
    for (int64_t i = 0; i < count; i += kTileRows) {
      const int64_t rows = std::min<int64_t>(kTileRows, count - i);
      if (!p.a_transposed) PackTile(p, block, first + i, rows, scratch);
      const uint32_t* tile = p.a_transposed ? scratch + i * block.pairs() : scratch;
      WithRows<kTileRows>(rows,
                          [&](auto number) { MultiplyRows<decltype(number)::value>(p, block, first + i, tile); });
    }
  }
}

void MultiplyRounded(const FloatProduct& p, float* scratch) {
  auto* panels = reinterpret_cast<uint32_t*>(scratch);
  for (int64_t column = 0; column < p.cols; column += kColumns) {
    const int64_t columns = std::min(kColumns, p.cols - column);
    for (int64_t k = 0; k < p.depth; k += kDepth) {
      const Bf16ProductBlock block{k, std::min(kDepth, p.depth - k), column, columns, panels, k == 0 && !p.add};
      PackBlock(p, block, panels);
      MultiplyBlock(p, block, panels + kPairs * kColumns);
    }
  }
}

}  // namespace

void FillRoundedMultiply(Kernels& table) {
  if (__builtin_cpu_supports("avx512bf16")) table.multiply_bf16 = MultiplyRounded;
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
#pragma GCC pop_options
HWY_AFTER_NAMESPACE();
#else
namespace fathom::HWY_NAMESPACE {
void FillRoundedMultiply(Kernels& /*table*/) {}  // multiply_bf16 stays null
}  // namespace fathom::HWY_NAMESPACE
#endif

#if HWY_ONCE
namespace fathom {
HWY_EXPORT(FillRoundedMultiply);
void fill_bf16_multiply(Kernels& table) { HWY_DYNAMIC_DISPATCH(FillRoundedMultiply)(table); }
}  // namespace fathom
#endif
