// Quantised weights by few rows of activations (decode): each row of W is unpacked and multiplied in registers, 256
// weights at a time. Included inside Highway's target loop.
#if defined(FATHOM_QUANTISED_ROWS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_QUANTISED_ROWS_INL
#undef FATHOM_QUANTISED_ROWS_INL
#else
#define FATHOM_QUANTISED_ROWS_INL
#endif

#include "kernels/byte_products-inl.h"

#if FATHOM_VECTOR_TARGET
HWY_BEFORE_NAMESPACE();
// Highway's AVX3_DL checks for VNNI at run time, but its compiler attributes (1.0.3) lack the 512-bit instructions.
#if HWY_TARGET == HWY_AVX3_DL
#pragma GCC push_options
#pragma GCC target("avx512vnni")
#endif
namespace fathom {
namespace HWY_NAMESPACE {

/// Sums of four neighbouring products of a vector of codes with as many activations, a lane each. kSigned: of
/// code − 128, where the instructions cannot take codes of eight bits.
template <bool kSigned>
HWY_INLINE IntVec DotCodes(CodeVec codes, const int8_t* HWY_RESTRICT x) {
#if FATHOM_VNNI
  return IntVec{_mm512_dpbusd_epi32(_mm512_setzero_si512(), codes.raw, LoadBytes(x))};
#elif FATHOM_BYTES
  ByteVec w = codes.raw, a = LoadBytes(x);
  if constexpr (kSigned) {
    w = Signed(w);
    a = WithSignOf(a, w);
    w = Magnitude(w);
  }
  return IntVec{Widen(MultiplyBytes(w, a))};
#else
  const hn::Rebind<int16_t, hn::Half<CodeTag>> d16;
  const hn::Half<CodeTag> half;
  const hn::Rebind<int8_t, decltype(half)> half_signed;
  const IntTag d;
  auto odd = hn::Zero(d);
  const auto low = hn::ReorderWidenMulAccumulate(d, hn::PromoteTo(d16, hn::LowerHalf(half, codes)),
                                                 hn::PromoteTo(d16, hn::LoadU(half_signed, x)), hn::Zero(d), odd);
  const auto both =
      hn::ReorderWidenMulAccumulate(d, hn::PromoteTo(d16, hn::UpperHalf(half, codes)),
                                    hn::PromoteTo(d16, hn::LoadU(half_signed, x + kCodeLanes / 2)), low, odd);
  return hn::Add(both, odd);
#endif
}

// Rows of activations that one unpacking of a row of W serves: their sums and scales stay in registers.
#if HWY_MAX_BYTES == 64
constexpr int kDotRows = kMatvecRows;
#else
constexpr int kDotRows = 2;
#endif
// Rows of W that stay in the L1 cache until all rows of activations have seen them.
constexpr int64_t kRowsInCache = 16;
// How far ahead of their use weights are asked for, into the L2 and from there into the L1 cache. The hardware
// follows a stream only to the end of a 4 KiB page; far and near together reach nine tenths of what plain reading
// does, where near alone reached three quarters (found by trying 256 bytes to 16 KiB).
constexpr int64_t kPrefetchFar = 12288, kPrefetchNear = 512;

/// y[i, r] = W[r]·x[first + i] for kRows rows of activations; `last` is the end of what may be asked for ahead.
template <class Block, int kRows>
HWY_NOINLINE void DotRows(const Matrix& w, int64_t begin, int64_t end, const std::byte* last,
                          const ActivationRows& x, int64_t first, float* HWY_RESTRICT y, int64_t y_stride) {
  constexpr int kFloats = 16 / kScaleVectors;
  constexpr int64_t kRunBytes = kSuperBlock / kBlockWeights<Block> * sizeof(Block);
  const int64_t row_stride = w.cols / kBlockWeights<Block> * sizeof(Block);
  const FloatTag d;
  const IntTag di;
  const int64_t padded = padded_columns(w.cols);
  const int8_t* HWY_RESTRICT x_codes = x.q + first * padded;
  const float* HWY_RESTRICT x_scale = x.scale + first * padded / 16;
  const float* HWY_RESTRICT x_sum = x.sum + first * padded / 16;
  // four neighbouring lanes hold the sums of one group of 16
  const auto lane_group = hn::ShiftRight<2>(hn::Iota(di, 0));
  for (int64_t r = begin; r < end; ++r) {
    // two chains of sums hide the latency of adding; always two, so that a row comes out the same beside any others
    FloatVec even[kRows], odd[kRows];
    FATHOM_UNROLL
    for (int i = 0; i < kRows; ++i) even[i] = odd[i] = hn::Zero(d);
    const std::byte* HWY_RESTRICT row = w.data + r * row_stride;
    ForRuns(reinterpret_cast<const Block*>(row), w.cols, [&](const Block* HWY_RESTRICT b, int64_t k) {
      FATHOM_UNROLL
      for (int64_t byte = 0; byte < kRunBytes; byte += 64) {
        const std::byte* at = row + k / kSuperBlock * kRunBytes + byte;
        __builtin_prefetch(std::min(at + kPrefetchFar, last), 0, 2);
        __builtin_prefetch(at + kPrefetchNear, 0, 3);
      }
      const Scales scales = ScalesOf(b);
      FloatVec scale[kRows][kScaleVectors];
      FATHOM_UNROLL
      for (int i = 0; i < kRows; ++i) {
        FATHOM_UNROLL
        for (int v = 0; v < kScaleVectors; ++v) {
          const int64_t at = (i * padded + k) / 16 + v * kFloats;
          scale[i][v] = hn::Mul(scales.scale[v], hn::LoadU(d, x_scale + at));
          if constexpr (!kDotSigned<Block>) odd[i] = hn::NegMulAdd(scales.min[v], hn::LoadU(d, x_sum + at), odd[i]);
        }
      }
      FATHOM_UNROLL
      for (int j = 0; j < kCodeVectors; ++j) {
        const CodeVec codes = CodesAt(b, j / kVectorsOf64, j % kVectorsOf64);
        const auto groups = hn::IndicesFromVec(d, hn::Add(lane_group, hn::Set(di, kFloats / 4 * (j % 4))));
        FATHOM_UNROLL
        for (int i = 0; i < kRows; ++i) {
          const IntVec dots = DotCodes<kDotSigned<Block>>(codes, x_codes + i * padded + k + j * kCodeLanes);
          FloatVec& sum = j % 2 == 0 ? even[i] : odd[i];
          sum = hn::MulAdd(hn::ConvertTo(d, dots), hn::TableLookupLanes(scale[i][j / 4], groups), sum);
        }
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
  const std::byte* last = w.data + end * row_bytes(w.type, w.cols);  // what follows is another thread's
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
