// Products of quantised weights with few rows of activations (decode): each row of W is unpacked and multiplied in
// registers, one super-block at a time. Included inside Highway's target loop.
#if defined(FATHOM_QUANTISED_ROWS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_QUANTISED_ROWS_INL
#undef FATHOM_QUANTISED_ROWS_INL
#else
#define FATHOM_QUANTISED_ROWS_INL
#endif

#include "kernels/byte_products-inl.h"
#include "kernels/interleaved_quants-inl.h"

#if FATHOM_VECTOR_TARGET
HWY_BEFORE_NAMESPACE();
// Highway's AVX3_DL checks for VNNI at run time, but its compiler attributes (1.0.3) lack the 512-bit instructions.
#if HWY_TARGET == HWY_AVX3_DL
#pragma GCC push_options
#pragma GCC target("avx512vnni")
#endif
namespace fathom {
namespace HWY_NAMESPACE {

#if HWY_MAX_BYTES == 64
/// Multiplies kCount vectors of quantised values with activations. Returns in each lane the sum over the vectors of
/// its four products. Multiplies value − 128 if the instructions do not support values of eight bits (kDotSigned).
template <class Block, int kCount>
HWY_INLINE FloatVec DotInterleaved(const QuantVec* quants, const int8_t* HWY_RESTRICT x) {
#if FATHOM_VNNI
  __m512i sums = _mm512_setzero_si512();
  FATHOM_UNROLL
  for (int j = 0; j < kCount; ++j) sums = _mm512_dpbusd_epi32(sums, quants[j].raw, LoadBytes(x + 64 * j));
#else
  constexpr int kNarrow = std::min(kCount, kNarrowSteps<Block>);
  __m512i sums;
  FATHOM_UNROLL
  for (int begin = 0; begin < kCount; begin += kNarrow) {
    __m512i narrow;
    FATHOM_UNROLL
    for (int j = begin; j < begin + kNarrow; ++j) {
      const ByteVec products = MultiplyQuants<kDotSigned<Block>>(quants[j].raw, LoadBytes(x + 64 * j));
      narrow = j == begin ? products : Add16(narrow, products);
    }
    sums = begin == 0 ? Widen(narrow) : Add32(sums, Widen(narrow));
  }
#endif
  return hn::ConvertTo(FloatTag(), IntVec{sums});
}

/// A super-block of weights, unpacked for products with any row of activations.
template <class Block>
struct SuperBlockDot {
  static constexpr bool kHalves = kGroupWeights<Block> == 16;  // the two halves of 32 weights have separate scales

  HWY_INLINE explicit SuperBlockDot(const Block* HWY_RESTRICT b) : interleaved(Interleaved(b)) {
    const GroupScales scales = ScalesOf(b);
    min = scales.min[0];
    scale = kHalves ? hn::DupEven(scales.scale[0]) : scales.scale[0];
    second_scale = kHalves ? hn::DupOdd(scales.scale[0]) : scale;
  }
  /// Adds the products with the activations of the super-block to the sums.
  HWY_INLINE void Add(const int8_t* HWY_RESTRICT x, const float* HWY_RESTRICT x_scale,
                      const float* HWY_RESTRICT x_sum, FloatVec& sum, FloatVec& other) const {
    const FloatTag d;
    const auto factor = hn::LoadU(d, x_scale);
    if constexpr (kHalves) {
      sum = hn::MulAdd(DotInterleaved<Block, 2>(interleaved.vector, x), hn::Mul(scale, factor), sum);
      other = hn::MulAdd(DotInterleaved<Block, 2>(interleaved.vector + 2, x + 128), hn::Mul(second_scale, factor),
                         other);
    } else {
      sum = hn::MulAdd(DotInterleaved<Block, 4>(interleaved.vector, x), hn::Mul(scale, factor), sum);
    }
    if constexpr (!kDotSigned<Block>) other = hn::NegMulAdd(min, hn::LoadU(d, x_sum), other);
  }

  InterleavedQuants interleaved;
  FloatVec scale, second_scale, min;
};
#else
/// Multiplies a vector of quantised values with activations. Returns in each lane the sum of four neighbouring
/// products. kSigned: multiplies value − 128, for instructions that do not support values of eight bits.
template <bool kSigned>
HWY_INLINE IntVec DotQuants(QuantVec quants, const int8_t* HWY_RESTRICT x) {
#if FATHOM_BYTES
  return IntVec{Widen(MultiplyQuants<kSigned>(quants.raw, LoadBytes(x)))};
#else
  const hn::Rebind<int16_t, hn::Half<QuantTag>> d16;
  const hn::Half<QuantTag> half;
  const hn::Rebind<int8_t, decltype(half)> half_signed;
  const IntTag d;
  auto odd = hn::Zero(d);
  const auto low = hn::ReorderWidenMulAccumulate(d, hn::PromoteTo(d16, hn::LowerHalf(half, quants)),
                                                 hn::PromoteTo(d16, hn::LoadU(half_signed, x)), hn::Zero(d), odd);
  const auto both =
      hn::ReorderWidenMulAccumulate(d, hn::PromoteTo(d16, hn::UpperHalf(half, quants)),
                                    hn::PromoteTo(d16, hn::LoadU(half_signed, x + kQuantLanes / 2)), low, odd);
  return hn::Add(both, odd);
#endif
}

/// A super-block of weights, unpacked for products with any row of activations.
template <class Block>
struct SuperBlockDot {
  static constexpr int kFloats = 16 / kScaleVectors;

  HWY_INLINE explicit SuperBlockDot(const Block* HWY_RESTRICT b) : scales(ScalesOf(b)) {
    FATHOM_UNROLL
    for (int j = 0; j < kQuantVectors; ++j) quants[j] = QuantsAt(b, j / kVectorsOf64, j % kVectorsOf64);
  }
  /// Adds the products with the activations of the super-block to the sums.
  HWY_INLINE void Add(const int8_t* HWY_RESTRICT x, const float* HWY_RESTRICT x_scale,
                      const float* HWY_RESTRICT x_sum, FloatVec& sum, FloatVec& other) const {
    const FloatTag d;
    const IntTag di;
    // four neighbouring lanes hold the sums of one group of 16
    const auto lane_group = hn::ShiftRight<2>(hn::Iota(di, 0));
    FloatVec scale[kScaleVectors];
    FATHOM_UNROLL
    for (int v = 0; v < kScaleVectors; ++v) {
      scale[v] = hn::Mul(scales.scale[v], hn::LoadU(d, x_scale + v * kFloats));
      if constexpr (!kDotSigned<Block>)
        other = hn::NegMulAdd(scales.min[v], hn::LoadU(d, x_sum + v * kFloats), other);
    }
    FATHOM_UNROLL
    for (int j = 0; j < kQuantVectors; ++j) {
      const auto groups = hn::IndicesFromVec(d, hn::Add(lane_group, hn::Set(di, kFloats / 4 * (j % 4))));
      const auto dots = hn::ConvertTo(d, DotQuants<kDotSigned<Block>>(quants[j], x + j * kQuantLanes));
      FloatVec& to = j % 2 == 0 ? sum : other;
      to = hn::MulAdd(dots, hn::TableLookupLanes(scale[j / 4], groups), to);
    }
  }

  GroupScales scales;
  QuantVec quants[kQuantVectors];
};
#endif

// Rows of activations that are multiplied with one unpacked row of W; their sums and scales stay in registers.
#if HWY_MAX_BYTES == 64
constexpr int kDotRows = kMatvecRows;
#else
constexpr int kDotRows = 2;
#endif
// Rows of W that stay in the L1 cache until all rows of activations are multiplied with them.
constexpr int64_t kRowsInCache = 16;

/// y[first + i, r] = W[r]·x[first + i] for kRows rows of activations. Weights are prefetched up to `last`.
template <class Block, int kRows>
HWY_NOINLINE void DotRows(const Matrix& w, int64_t begin, int64_t end, const std::byte* last,
                          const ActivationRows& x, int64_t first, float* HWY_RESTRICT y, int64_t y_stride) {
  constexpr int64_t kSuperBlockBytes = kSuperBlock / kBlockWeights<Block> * sizeof(Block);
  const int64_t row_stride = w.cols / kBlockWeights<Block> * sizeof(Block);
  const FloatTag d;
  const StreamPrefetch distance = stream_prefetch();
  const int64_t padded = padded_columns(w.cols);
  const int8_t* HWY_RESTRICT x_quants = x.q + first * padded;
  const float* HWY_RESTRICT x_scale = x.scale + first * padded / 16;
  const float* HWY_RESTRICT x_sum = x.sum + first * padded / 16;
  for (int64_t r = begin; r < end; ++r) {
    // Two chains of sums hide the latency of additions. Always two, so that the result of a row does not depend on
    // the other rows.
    FloatVec even[kRows], odd[kRows];
    FATHOM_UNROLL
    for (int i = 0; i < kRows; ++i) even[i] = odd[i] = hn::Zero(d);
    const std::byte* HWY_RESTRICT row = w.data + r * row_stride;
    ForSuperBlocks(reinterpret_cast<const Block*>(row), w.cols, [&](const Block* HWY_RESTRICT b, int64_t k) {
      FATHOM_UNROLL
      for (int64_t byte = 0; byte < kSuperBlockBytes; byte += 64) {
        const std::byte* at = row + k / kSuperBlock * kSuperBlockBytes + byte;
        __builtin_prefetch(std::min(at + distance.far, last), 0, 2);
        __builtin_prefetch(at + distance.near, 0, 3);
      }
      const SuperBlockDot<Block> super_block(b);
      FATHOM_UNROLL
      for (int i = 0; i < kRows; ++i) {
        const int64_t group = i * (padded / 16) + k / 16;
        super_block.Add(x_quants + i * padded + k, x_scale + group, x_sum + group, even[i], odd[i]);
      }
    });
    FATHOM_UNROLL
    for (int i = 0; i < kRows; ++i)
      y[(first + i) * y_stride + r] = hn::GetLane(hn::SumOfLanes(d, hn::Add(even[i], odd[i])));
  }
}

template <class Block>
void MatvecQuantised(const Matrix& w, int64_t begin, int64_t end, const ActivationRows& x, float* HWY_RESTRICT y,
                     int64_t y_stride) {
  // Another thread reads the rows that follow.
  const std::byte* last = w.data + end * row_bytes(w.type, w.cols);
  const int64_t step = x.rows > kDotRows ? kRowsInCache : end - begin;
  for (int64_t r = begin; r < end; r += step) {
    for (int64_t first = 0; first < x.rows; first += kDotRows) {
      WithRows<kDotRows>(std::min<int64_t>(kDotRows, x.rows - first), [&](auto count) {
        DotRows<Block, decltype(count)::value>(w, r, std::min(r + step, end), last, x, first, y, y_stride);
      });
    }
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
#if HWY_TARGET == HWY_AVX3_DL
#pragma GCC pop_options
#endif
HWY_AFTER_NAMESPACE();
#endif

#endif
