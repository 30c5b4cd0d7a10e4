// Products of attention with pages of floats, read as stored or unpacked into a tile. Included inside Highway's
// target loop.
#if defined(FATHOM_ATTEND_FLOATS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_ATTEND_FLOATS_INL
#undef FATHOM_ATTEND_FLOATS_INL
#else
#define FATHOM_ATTEND_FLOATS_INL
#endif

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels/lanes-inl.h"

#if FATHOM_VECTOR_TARGET
HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

/// Prefetches the cache line at p to the L2 cache. The few fill buffers of the L1 stay free for current loads.
HWY_INLINE void PrefetchToL2(const void* p) { __builtin_prefetch(p, 0, 2); }
/// Prefetches to the L1. On Zen 5, attention over float pages is 10 % slower with prefetches to the L2 only.
HWY_INLINE void PrefetchToL1(const void* p) { __builtin_prefetch(p, 0, 3); }

// Queries and vectors of a register tile: 4 × 4 sums and the operands fit 32 registers, 4 × 2 fit 16.
constexpr int kQueries = 4;
#if HWY_TARGET == HWY_AVX3_DL || HWY_TARGET == HWY_AVX3
constexpr int kVectors = 4;
#else
constexpr int kVectors = 2;
#endif

/// The layout of pairs: in rows of `width` (values), or in tiles of kKeyTile columns by `rows` rows (keys).
struct RowLayout {
  HWY_INLINE int64_t operator()(int64_t row, int64_t column, int64_t width) const { return row * width + column; }
};
struct TileLayout {
  int64_t rows;
  HWY_INLINE int64_t operator()(int64_t row, int64_t column, int64_t /*width*/) const {
    return (column / kKeyTile * rows + row) * kKeyTile + column % kKeyTile;
  }
};

/// Pairs of elements as stored in pages. Load returns Lanes() pairs from p on as two vectors.
struct Bf16Words {  // interleaved bfloat16: the even element is the low half of a word
  using Word = uint32_t;
  static constexpr int kWords = 1;  // of a pair
  static HWY_INLINE void Load(const Word* p, FloatVec& even, FloatVec& odd) {
    const WordTag d;
    const auto words = hn::LoadU(d, p);
    even = hn::BitCast(FloatTag(), hn::ShiftLeft<16>(words));
    odd = hn::BitCast(FloatTag(), hn::And(words, hn::Set(d, 0xffff0000u)));
  }
  static float Element(const Word* p, int parity) {
    const uint32_t bits = parity ? *p & 0xffff0000u : *p << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
  }
};
struct F32Words {  // interleaved floats
  using Word = float;
  static constexpr int kWords = 2;
  static HWY_INLINE void Load(const Word* p, FloatVec& even, FloatVec& odd) {
    hn::LoadInterleaved2(FloatTag(), p, even, odd);
  }
  static float Element(const Word* p, int parity) { return p[parity]; }
};

/// Sources of pairs of elements. Load returns the pairs of a row from a column on as two vectors. PagePairs reads a
/// page as stored. With each load it also prefetches the same amount of the data that is read next.
template <class Words, class Layout>
struct PagePairs {
  const typename Words::Word* data;
  const std::byte* next_data;
  Layout layout;
  HWY_INLINE void Load(int64_t row, int64_t column, int64_t width, FloatVec& even, FloatVec& odd) const {
    const int64_t index = Words::kWords * layout(row, column, width);
    Words::Load(data + index, even, odd);
    // PairProduct reads one tile after the other, or all tiles row by row if its vectors span a page.
    const bool in_rows = kVectors * Lanes() == kPageTokens;
    const int64_t next = in_rows ? 4 * Words::kWords * (row * width + column) : 4 * index;
    FATHOM_UNROLL
    for (int i = 0; i < Words::kWords; ++i) PrefetchToL1(next_data + next + 64 * i);
  }
};
struct TilePairs {  // rows of floats: the even row of a pair, then the odd one
  const float* data;
  HWY_INLINE void Load(int64_t row, int64_t column, int64_t width, FloatVec& even, FloatVec& odd) const {
    even = hn::LoadU(FloatTag(), data + 2 * row * width + column);
    odd = hn::LoadU(FloatTag(), data + (2 * row + 1) * width + column);
  }
};

/// out[i, c] (+)= Σ over pairs r of a[i, 2r]·even(r, c) + a[i, 2r+1]·odd(r, c) for kRows rows of a and kCols
/// vectors of columns. The main product of attention: scores (r: dimensions, c: tokens) and weighted values (r:
/// tokens, c: dimensions).
template <int kRows, int kCols, bool kAdd, class Pairs>
HWY_INLINE void PairProductColumns(const Pairs& page, int64_t pairs, int64_t width, int64_t column,
                                   const float* HWY_RESTRICT a, int64_t a_stride, float* HWY_RESTRICT out,
                                   int64_t out_stride) {
  const FloatTag d;
  const int64_t lanes = Lanes();
  // A single vector has separate sums for odd elements: twice as many independent chains.
  constexpr bool kSplit = kCols == 1;
  FloatVec sums[kRows][kCols], odd_sums[kRows];
  FATHOM_UNROLL
  for (int i = 0; i < kRows; ++i) odd_sums[i] = hn::Zero(d);
  FATHOM_UNROLL
  for (int i = 0; i < kRows; ++i) {
    FATHOM_UNROLL
    for (int j = 0; j < kCols; ++j)
      sums[i][j] = kAdd ? hn::LoadU(d, out + i * out_stride + column + j * lanes) : hn::Zero(d);
  }
  for (int64_t r = 0; r < pairs; ++r) {
    FloatVec even[kCols], odd[kCols];
    FATHOM_UNROLL
    for (int j = 0; j < kCols; ++j) page.Load(r, column + j * lanes, width, even[j], odd[j]);
    FATHOM_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const auto a0 = hn::Set(d, a[i * a_stride + 2 * r]), a1 = hn::Set(d, a[i * a_stride + 2 * r + 1]);
      FATHOM_UNROLL
      for (int j = 0; j < kCols; ++j) {
        sums[i][j] = hn::MulAdd(a0, even[j], sums[i][j]);
        if constexpr (kSplit) {
          odd_sums[i] = hn::MulAdd(a1, odd[j], odd_sums[i]);
        } else {
          sums[i][j] = hn::MulAdd(a1, odd[j], sums[i][j]);
        }
      }
    }
  }
  FATHOM_UNROLL
  for (int i = 0; i < kRows; ++i) {
    FATHOM_UNROLL
    for (int j = 0; j < kCols; ++j)
      hn::StoreU(kSplit ? hn::Add(sums[i][j], odd_sums[i]) : sums[i][j], d,
                 out + i * out_stride + column + j * lanes);
  }
}

/// Returns the element at (pair r, column c, parity) of a page, for widths that are not a multiple of the vectors.
template <class Words, class Layout>
HWY_INLINE float Element(const PagePairs<Words, Layout>& p, int64_t row, int64_t column, int64_t width,
                         int parity) {
  return Words::Element(p.data + Words::kWords * p.layout(row, column, width), parity);
}
HWY_INLINE float Element(const TilePairs& p, int64_t row, int64_t column, int64_t width, int parity) {
  return p.data[(2 * row + parity) * width + column];
}

template <int kRows, bool kAdd, class Pairs>
HWY_INLINE void PairProduct(const Pairs& page, int64_t pairs, int64_t width, const float* HWY_RESTRICT a,
                            int64_t a_stride, float* HWY_RESTRICT out, int64_t out_stride) {
  const int64_t lanes = Lanes();
  int64_t column = 0;
  for (; column + kVectors * lanes <= width; column += kVectors * lanes) {
    PairProductColumns<kRows, kVectors, kAdd>(page, pairs, width, column, a, a_stride, out, out_stride);
  }
  for (; column + lanes <= width; column += lanes) {
    PairProductColumns<kRows, 1, kAdd>(page, pairs, width, column, a, a_stride, out, out_stride);
  }
  if (width % lanes == 0) return;
  for (; column < width; ++column) {
    FATHOM_UNROLL
    for (int i = 0; i < kRows; ++i) {
      float total = kAdd ? out[i * out_stride + column] : 0.0f;
      for (int64_t r = 0; r < pairs; ++r) {
        total += a[i * a_stride + 2 * r] * Element(page, r, column, width, 0) +
                 a[i * a_stride + 2 * r + 1] * Element(page, r, column, width, 1);
      }
      out[i * out_stride + column] = total;
    }
  }
}

/// PairProduct for any number of rows of a.
template <bool kAdd, class Pairs>
HWY_INLINE void PairProductRows(const Pairs& page, int64_t pairs, int64_t width, int rows, const float* a,
                                int64_t a_stride, float* out, int64_t out_stride) {
  int i = 0;
  for (; i + kQueries <= rows; i += kQueries) {
    PairProduct<kQueries, kAdd>(page, pairs, width, a + i * a_stride, a_stride, out + i * out_stride, out_stride);
  }
  for (; i < rows; ++i)
    PairProduct<1, kAdd>(page, pairs, width, a + i * a_stride, a_stride, out + i * out_stride, out_stride);
}

/// Writes interleaved pairs as rows of even and odd elements, as floats: [pairs][2][width].
template <class Pairs>
HWY_INLINE void Deinterleave(const Pairs& page, int64_t pairs, int64_t width, float* HWY_RESTRICT tile) {
  const FloatTag d;
  const int64_t lanes = Lanes();
  for (int64_t r = 0; r < pairs; ++r) {
    int64_t c = 0;
    for (; c + lanes <= width; c += lanes) {
      FloatVec even, odd;
      page.Load(r, c, width, even, odd);
      hn::StoreU(even, d, tile + 2 * r * width + c);
      hn::StoreU(odd, d, tile + (2 * r + 1) * width + c);
    }
    for (; c < width; ++c) {
      tile[2 * r * width + c] = Element(page, r, c, width, 0);
      tile[(2 * r + 1) * width + c] = Element(page, r, c, width, 1);
    }
  }
}

HWY_INLINE bool AllFinite(const float* HWY_RESTRICT x, int n) {
  const FloatTag d;
  const auto zero = hn::Zero(d);
  auto sum = zero;  // Σ 0 · x, which is NaN if an x is not finite
  int i = 0;
  for (; i + Lanes() <= n; i += Lanes()) sum = hn::MulAdd(zero, hn::LoadU(d, x + i), sum);
  float rest = 0;
  for (; i < n; ++i) rest += 0 * x[i];
  return hn::AllTrue(d, hn::Eq(sum, zero)) && rest == 0;
}

/// Sets the results of queries that are not finite to NaN. Quantised pages are multiplied with queries rounded to
/// integers, and a maximum may ignore NaN, so the results are not always NaN otherwise.
HWY_NOINLINE inline void SetNonFiniteToNan(const AttendTask& task) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  for (int64_t i = 0; i < static_cast<int64_t>(task.rows) * task.group; ++i) {
    if (AllFinite(task.queries + i * task.key_dim, task.key_dim)) continue;
    if (task.out) std::fill_n(task.out + i * task.value_dim, task.value_dim, kNan);
    task.lse[i] = kNan;
    if (task.mass) std::fill_n(task.mass + i * task.page_count, task.page_count, kNan);
  }
}

/// Sets scores outside the mask to −infinity. scores: [vectors · Lanes()].
HWY_INLINE void MaskScores(uint64_t mask, int vectors, float* HWY_RESTRICT scores) {
  const FloatTag d;
  const int lanes = Lanes();
  for (int t = 0; t < vectors * lanes; t += lanes) {
    const uint64_t bits = mask >> t;
    const auto visible = hn::LoadMaskBits(d, reinterpret_cast<const uint8_t*>(&bits));
    hn::Store(hn::IfThenElse(visible, hn::Load(d, scores + t), hn::Set(d, kMinusInfinity)), d, scores + t);
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();
#endif

#endif
