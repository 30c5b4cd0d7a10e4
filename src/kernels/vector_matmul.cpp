// Matrix products for every weight type, once per instruction set.
// One row of activations (decode): each row of W is unpacked 256 weights at a time and multiplied at once. Many
// rows (prefill): a panel of rows of W is unpacked into the order in which the multiply-add instructions read it,
// then multiplied with all rows of activations.
#include "kernels/vector.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

// Highway's order: the target loop first, then what it compiles once per target.
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/vector_matmul.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/panels-inl.h"
#include "kernels/unpack-inl.h"
#include "kernels/float_matmul-inl.h"
#include "kernels/transpose-inl.h"
// clang-format on

#if FATHOM_VECTOR_TARGET
HWY_BEFORE_NAMESPACE();
// Highway's AVX3_DL checks for VNNI at run time, but its compiler attributes (1.0.3) lack the 512-bit instructions.
#if HWY_TARGET == HWY_AVX3_DL
#pragma GCC push_options
#pragma GCC target("avx512vnni")
#endif
namespace fathom {
namespace HWY_NAMESPACE {

using IntTag = hn::Rebind<int32_t, FloatTag>;
using IntVec = hn::Vec<IntTag>;

// VNNI multiplies four unsigned by four signed bytes a lane; other x86 the same in three instructions, with sums of
// 16 bits in between; elsewhere pairs of 16-bit numbers are multiplied.
#undef FATHOM_VNNI
#define FATHOM_VNNI (HWY_TARGET == HWY_AVX3_DL)
#undef FATHOM_BYTES
#define FATHOM_BYTES HWY_ARCH_X86
#if FATHOM_BYTES
constexpr int kStep = 4;
using PanelInt = uint8_t;
#else
constexpr int kStep = 2;
using PanelInt = int16_t;
#endif

// 32 rows of as many bytes, and scales, stay within the L1 cache or the nearest part of the L2.
constexpr int kPanelColumns = 1024;

/// 32 activations to 8 bits; see QuantizeActivations.
HWY_INLINE void QuantizeBlock(const float* HWY_RESTRICT x, int8_t* HWY_RESTRICT q, float* HWY_RESTRICT scale,
                              float* HWY_RESTRICT sum, float* HWY_RESTRICT pair_sum) {
  const FloatTag d;
  const IntTag di;
  constexpr int kLanes = HWY_MAX_BYTES / 4, kVectors = 32 / kLanes;
  FloatVec values[kVectors];
  auto largest = hn::Zero(d);
  FATHOM_UNROLL
  for (int i = 0; i < kVectors; ++i) {
    values[i] = hn::LoadU(d, x + i * kLanes);
    largest = hn::Max(largest, hn::Abs(values[i]));
  }
  const float most = hn::GetLane(hn::MaxOfLanes(d, largest));
  const auto inverse = hn::Set(d, most > 0 ? 127.0f / most : 0.0f);
  IntVec totals[2] = {hn::Zero(di), hn::Zero(di)};
  FATHOM_UNROLL
  for (int i = 0; i < kVectors; ++i) {
    const IntVec rounded = hn::NearestInt(hn::Mul(values[i], inverse));
    hn::StoreU(hn::DemoteTo(hn::Rebind<int8_t, IntTag>(), rounded), hn::Rebind<int8_t, IntTag>(), q + i * kLanes);
    totals[2 * i / kVectors] = hn::Add(totals[2 * i / kVectors], rounded);
  }
  const float s = most / 127.0f;
  const int32_t first = hn::GetLane(hn::SumOfLanes(di, totals[0]));
  const int32_t second = hn::GetLane(hn::SumOfLanes(di, totals[1]));
  scale[0] = scale[1] = s;
  sum[0] = s * static_cast<float>(first);
  sum[1] = s * static_cast<float>(second);
  *pair_sum = s * static_cast<float>(first + second);
}

void QuantizeActivations(const float* HWY_RESTRICT x, int64_t cols, int8_t* HWY_RESTRICT q,
                         float* HWY_RESTRICT scale, float* HWY_RESTRICT sum, float* HWY_RESTRICT pair_sum) {
  const int64_t padded = padded_columns(cols);
  for (int64_t k = 0; k < padded; k += 32) {
    alignas(64) float last[32] = {};
    const float* from = x + k;
    if (cols - k < 32) {
      if (k < cols) std::copy(from, x + cols, last);
      from = last;
    }
    QuantizeBlock(from, q + k, scale + k / 16, sum + k / 16, pair_sum + k / 32);
  }
}

/// Sums of four neighbouring products of a vector of codes with as many activations, a lane each. kSigned: of
/// code − 128, where the instructions cannot take codes of eight bits.
template <bool kSigned>
HWY_INLINE IntVec DotCodes(CodeVec codes, const int8_t* HWY_RESTRICT x) {
#if FATHOM_VNNI
  return IntVec{_mm512_dpbusd_epi32(_mm512_setzero_si512(), codes.raw, _mm512_loadu_si512(x))};
#elif HWY_TARGET == HWY_AVX3
  __m512i w = codes.raw, a = _mm512_loadu_si512(x);
  if constexpr (kSigned) {
    w = _mm512_xor_si512(w, _mm512_set1_epi8(-128));
    a = _mm512_mask_sub_epi8(a, _mm512_movepi8_mask(w), _mm512_setzero_si512(), a);
    w = _mm512_abs_epi8(w);
  }
  return IntVec{_mm512_madd_epi16(_mm512_maddubs_epi16(w, a), _mm512_set1_epi16(1))};
#elif HWY_TARGET == HWY_AVX2
  __m256i w = codes.raw, a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
  if constexpr (kSigned) {
    w = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
    a = _mm256_sign_epi8(a, w);
    w = _mm256_abs_epi8(w);
  }
  return IntVec{_mm256_madd_epi16(_mm256_maddubs_epi16(w, a), _mm256_set1_epi16(1))};
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

// Only x86 without VNNI needs signed codes.
#if FATHOM_BYTES && !FATHOM_VNNI
template <class Block>
inline constexpr bool kDotSigned = kSignedCodes<Block>;
#else
template <class Block>
inline constexpr bool kDotSigned = false;
#endif

// Rows of activations that one unpacking of a row of W serves: their sums and scales stay in registers.
#if HWY_MAX_BYTES == 64
constexpr int kDotRows = 4;
#else
constexpr int kDotRows = 2;
#endif
// How far ahead of their use weights are asked for, into the L2 and from there into the L1 cache. The hardware
// follows a stream only to the end of a 4 KiB page; far and near together reach nine tenths of what plain reading
// does, where near alone reached three quarters (found by trying 256 bytes to 16 KiB).
constexpr int64_t kPrefetchFar = 12288, kPrefetchNear = 512;

/// y[i, r] = W[r]·x[first + i] for kRows rows of activations.
template <class Block, int kRows>
HWY_NOINLINE void DotRows(const Matrix& w, int64_t begin, int64_t end, const ActivationRows& x, int64_t first,
                          float* HWY_RESTRICT y, int64_t y_stride) {
  constexpr int kFloats = 16 / kScaleVectors;
  constexpr int64_t kRunBytes = kSuperBlock / kBlockWeights<Block> * sizeof(Block);
  const int64_t row_stride = w.cols / kBlockWeights<Block> * sizeof(Block);
  const FloatTag d;
  const IntTag di;
  const int64_t padded = padded_columns(w.cols);
  const int8_t* HWY_RESTRICT x_codes = x.q + first * padded;
  const float* HWY_RESTRICT x_scale = x.scale + first * padded / 16;
  const float* HWY_RESTRICT x_sum = x.sum + first * padded / 16;
  const std::byte* last = w.data + end * row_stride;  // what follows is another thread's
  // four neighbouring lanes hold the sums of one group of 16
  const auto lane_group = hn::ShiftRight<2>(hn::Iota(di, 0));
  for (int64_t r = begin; r < end; ++r) {
    FloatVec even[kRows], odd[kRows];  // two chains of sums hide the latency of adding
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
  for (int64_t first = 0; first < x.rows; first += kDotRows) {
    const int64_t rows = std::min<int64_t>(kDotRows, x.rows - first);
    WithRows<kDotRows>(
        rows, [&](auto count) { DotRows<Block, decltype(count)::value>(w, begin, end, x, first, y, y_stride); });
  }
}

/// A panel of rows of W, unpacked: values [columns/kStep, panel rows, kStep], scales and mins [columns/16, panel
/// rows].
struct Panel {
  alignas(64) PanelInt values[kPanelColumns * kMaxPanelRows];
  alignas(64) float scale[kPanelColumns / 16 * kMaxPanelRows];
  alignas(64) float min[kPanelColumns / 16 * kMaxPanelRows];
};

#if FATHOM_VNNI
/// Unpacks rows [first, first + rows) and columns [column, column + n) of W; missing rows of the panel are zero. 16
/// rows at a time are turned in registers.
template <class Block>
void PackPanel(const Matrix& w, int64_t first, int64_t rows, int64_t column, int64_t n, Panel& panel) {
  constexpr int64_t kBlocks = kSuperBlock / kBlockWeights<Block>;
  const size_t stride = row_bytes(w.type, w.cols);
  for (int64_t half = 0; half < kMaxPanelRows; half += 16) {
    for (int64_t k = 0; k < n; k += kSuperBlock) {
      const int64_t run = std::min<int64_t>(kSuperBlock, n - k);
      Block spare[16][kBlocks];
      const Block* from[16];
      for (int64_t i = 0; i < 16; ++i) {
        const bool there = half + i < rows;
        from[i] = reinterpret_cast<const Block*>(w.data + (first + half + i) * stride) +
                  (column + k) / kBlockWeights<Block>;
        if (there && run == kSuperBlock) continue;
        std::memset(spare[i], 0, sizeof spare[i]);
        if (there) std::copy_n(from[i], run / kBlockWeights<Block>, spare[i]);
        from[i] = spare[i];
      }
      __m512i words[16];
      for (int chunk = 0; chunk < 4; ++chunk) {
        FATHOM_UNROLL
        for (int i = 0; i < 16; ++i) words[i] = CodesAt(from[i], chunk, 0).raw;
        Transpose(words);
        PanelInt* values = panel.values + (k + 64 * chunk) * kMaxPanelRows + half * kStep;
        FATHOM_UNROLL
        for (int i = 0; i < 16; ++i) _mm512_store_si512(values + i * kMaxPanelRows * kStep, words[i]);
      }
      __m512i mins[16];
      FATHOM_UNROLL
      for (int i = 0; i < 16; ++i) {
        const Scales scales = ScalesOf(from[i]);
        words[i] = _mm512_castps_si512(scales.scale[0].raw);
        mins[i] = _mm512_castps_si512(scales.min[0].raw);
      }
      Transpose(words);
      Transpose(mins);
      FATHOM_UNROLL
      for (int i = 0; i < 16; ++i) {
        const int64_t at = (k / 16 + i) * kMaxPanelRows + half;
        _mm512_store_si512(panel.scale + at, words[i]);
        _mm512_store_si512(panel.min + at, mins[i]);
      }
    }
  }
}
#else
/// Unpacks rows [first, first + rows) and columns [column, column + n) of W; missing rows of the panel are zero.
template <class Block>
void PackPanel(const Matrix& w, int64_t first, int64_t rows, int64_t column, int64_t n, Panel& panel) {
  const int64_t panel_rows = 2 * Lanes();
  alignas(64) uint8_t q[kSuperBlock];
  alignas(64) float scale[16], min[16];
  for (int64_t r = 0; r < panel_rows; ++r) {
    const auto put = [&](int64_t k, int64_t run) {
      PanelInt* HWY_RESTRICT values = panel.values + k * panel_rows + r * kStep;
      for (int64_t i = 0; i < run; i += kStep) {
        for (int s = 0; s < kStep; ++s) values[i * panel_rows + s] = q[i + s];
      }
      for (int64_t g = 0; g < run / 16; ++g) {
        panel.scale[(k / 16 + g) * panel_rows + r] = scale[g];
        panel.min[(k / 16 + g) * panel_rows + r] = min[g];
      }
    };
    if (r < rows) {
      const Block* row = reinterpret_cast<const Block*>(w.row(first + r)) + column / kBlockWeights<Block>;
      ForRuns(row, n, [&](const Block* HWY_RESTRICT b, int64_t k) {
        UnpackRun(b, q, scale, min);
        put(k, std::min<int64_t>(kSuperBlock, n - k));
      });
    } else {
      std::fill_n(q, kSuperBlock, 0);
      std::fill_n(scale, 16, 0.0f);
      std::fill_n(min, 16, 0.0f);
      for (int64_t k = 0; k < n; k += kSuperBlock) put(k, std::min<int64_t>(kSuperBlock, n - k));
    }
  }
}
#endif

/// The four, or on machines without byte products two, activations that one step multiplies, in every lane.
template <class T>
HWY_INLINE IntVec LoadStep(const T* p) {
  int32_t bits;
  std::memcpy(&bits, p, 4);
  return hn::Set(IntTag(), bits);
}

// DotGroup: dots = products of the panel's next kGroup columns with kRows rows of activations.
#if FATHOM_VNNI
using MicroInt = int8_t;  // activations as the micro-kernel reads them

template <class Block, int kRows>
HWY_INLINE void DotGroup(const PanelInt* HWY_RESTRICT weights, const MicroInt* HWY_RESTRICT q, int64_t q_stride,
                         IntVec (&dots)[kRows][2]) {
  FATHOM_UNROLL
  for (int i = 0; i < kRows; ++i) dots[i][0] = dots[i][1] = hn::Zero(IntTag());
  FATHOM_UNROLL
  for (int step = 0; step < kGroupWeights<Block> / kStep; ++step) {
    const __m512i w0 = _mm512_load_si512(weights + 128 * step), w1 = _mm512_load_si512(weights + 128 * step + 64);
    FATHOM_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const IntVec a = LoadStep(q + i * q_stride + step * kStep);
      dots[i][0].raw = _mm512_dpbusd_epi32(dots[i][0].raw, w0, a.raw);
      dots[i][1].raw = _mm512_dpbusd_epi32(dots[i][1].raw, w1, a.raw);
    }
  }
}
#elif FATHOM_BYTES
using MicroInt = int8_t;

#if HWY_TARGET == HWY_AVX2
HWY_INLINE __m256i LoadWeights(const PanelInt* p) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(p)); }
HWY_INLINE __m256i Signed(__m256i codes) { return _mm256_xor_si256(codes, _mm256_set1_epi8(-128)); }
HWY_INLINE __m256i Magnitude(__m256i v) { return _mm256_abs_epi8(v); }
HWY_INLINE __m256i WithSignOf(__m256i a, __m256i w) { return _mm256_sign_epi8(a, w); }
HWY_INLINE __m256i MultiplyBytes(__m256i w, __m256i a) { return _mm256_maddubs_epi16(w, a); }
HWY_INLINE __m256i Add16(__m256i a, __m256i b) { return _mm256_add_epi16(a, b); }
HWY_INLINE __m256i Add32(__m256i a, __m256i b) { return _mm256_add_epi32(a, b); }
HWY_INLINE __m256i Widen(__m256i sums) { return _mm256_madd_epi16(sums, _mm256_set1_epi16(1)); }
#else
HWY_INLINE __m512i LoadWeights(const PanelInt* p) { return _mm512_load_si512(p); }
HWY_INLINE __m512i Signed(__m512i codes) { return _mm512_xor_si512(codes, _mm512_set1_epi8(-128)); }
HWY_INLINE __m512i Magnitude(__m512i v) { return _mm512_abs_epi8(v); }
HWY_INLINE __m512i WithSignOf(__m512i a, __m512i w) {
  return _mm512_mask_sub_epi8(a, _mm512_movepi8_mask(w), _mm512_setzero_si512(), a);
}
HWY_INLINE __m512i MultiplyBytes(__m512i w, __m512i a) { return _mm512_maddubs_epi16(w, a); }
HWY_INLINE __m512i Add16(__m512i a, __m512i b) { return _mm512_add_epi16(a, b); }
HWY_INLINE __m512i Add32(__m512i a, __m512i b) { return _mm512_add_epi32(a, b); }
HWY_INLINE __m512i Widen(__m512i sums) { return _mm512_madd_epi16(sums, _mm512_set1_epi16(1)); }
#endif

/// Steps whose sums of pairs of products fit 16 bits: codes of b bits times 127, two a step.
template <class Block>
constexpr int kNarrowSteps = kCodeBits<Block> <= 4   ? 8
                             : kCodeBits<Block> == 5 ? 4
                             : kCodeBits<Block> == 6 ? 2
                                                     : 1;

template <class Block, int kRows>
HWY_INLINE void DotGroup(const PanelInt* HWY_RESTRICT weights, const MicroInt* HWY_RESTRICT q, int64_t q_stride,
                         IntVec (&dots)[kRows][2]) {
  constexpr int kSteps = kGroupWeights<Block> / kStep, kNarrow = std::min(kNarrowSteps<Block>, kSteps);
  constexpr int kBytes = HWY_MAX_BYTES;
  FATHOM_UNROLL
  for (int begin = 0; begin < kSteps; begin += kNarrow) {
    decltype(dots[0][0].raw) narrow[kRows][2];
    FATHOM_UNROLL
    for (int step = begin; step < begin + kNarrow; ++step) {
      auto w0 = LoadWeights(weights + 2 * kBytes * step), w1 = LoadWeights(weights + 2 * kBytes * step + kBytes);
      auto sign0 = w0, sign1 = w1;
      if constexpr (kDotSigned<Block>) {
        sign0 = Signed(w0);
        sign1 = Signed(w1);
        w0 = Magnitude(sign0);
        w1 = Magnitude(sign1);
      }
      FATHOM_UNROLL
      for (int i = 0; i < kRows; ++i) {
        const auto a = LoadStep(q + i * q_stride + step * kStep).raw;
        const auto p0 = MultiplyBytes(w0, kDotSigned<Block> ? WithSignOf(a, sign0) : a);
        const auto p1 = MultiplyBytes(w1, kDotSigned<Block> ? WithSignOf(a, sign1) : a);
        narrow[i][0] = step == begin ? p0 : Add16(narrow[i][0], p0);
        narrow[i][1] = step == begin ? p1 : Add16(narrow[i][1], p1);
      }
    }
    FATHOM_UNROLL
    for (int i = 0; i < kRows; ++i) {
      FATHOM_UNROLL
      for (int j = 0; j < 2; ++j) {
        const auto wide = Widen(narrow[i][j]);
        dots[i][j].raw = begin == 0 ? wide : Add32(dots[i][j].raw, wide);
      }
    }
  }
}
#else
using MicroInt = int16_t;

template <class Block, int kRows>
HWY_INLINE void DotGroup(const PanelInt* HWY_RESTRICT weights, const MicroInt* HWY_RESTRICT q, int64_t q_stride,
                         IntVec (&dots)[kRows][2]) {
  const IntTag d;
  const hn::Repartition<int16_t, IntTag> d16;
  FATHOM_UNROLL
  for (int i = 0; i < kRows; ++i) dots[i][0] = dots[i][1] = hn::Zero(d);
  for (int step = 0; step < kGroupWeights<Block> / kStep; ++step) {
    FATHOM_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const auto a = hn::BitCast(d16, LoadStep(q + i * q_stride + step * kStep));
      FATHOM_UNROLL
      for (int j = 0; j < 2; ++j) {
        const auto w = hn::Load(d16, weights + (2 * step + j) * Lanes() * kStep);
        auto odd = hn::Zero(d);
        const auto even = hn::ReorderWidenMulAccumulate(d, w, a, hn::Zero(d), odd);
        dots[i][j] = hn::Add(dots[i][j], hn::RearrangeToOddPlusEven(even, odd));
      }
    }
  }
}
#endif

/// y[i, 0 … panel rows) = (first) or += products of the panel with kRows rows of activations.
template <class Block, int kRows>
HWY_NOINLINE void MicroQuantised(const Panel& panel, int64_t n, bool first, const MicroInt* HWY_RESTRICT q,
                                 int64_t q_stride, const float* HWY_RESTRICT scale, const float* HWY_RESTRICT sum,
                                 int64_t padded, float* HWY_RESTRICT y, int64_t y_stride) {
  constexpr int kGroup = kGroupWeights<Block>;
  const FloatTag d;
  const int64_t lanes = Lanes();
  FloatVec total[kRows][2];
  LoadSums(first, y, y_stride, total);
  for (int64_t k = 0; k < n; k += kGroup) {
    IntVec dots[kRows][2];
    DotGroup<Block>(panel.values + 2 * lanes * k, q + k, q_stride, dots);
    FATHOM_UNROLL
    for (int j = 0; j < 2; ++j) {
      const FloatVec ws = hn::Load(d, panel.scale + (k / 8 + j) * lanes);
      FATHOM_UNROLL
      for (int i = 0; i < kRows; ++i) {
        const auto xs = hn::Set(d, scale[i * (padded / 16) + k / 16]);
        total[i][j] = hn::MulAdd(hn::ConvertTo(d, dots[i][j]), hn::Mul(ws, xs), total[i][j]);
      }
      if constexpr (!kDotSigned<Block>) {
        const FloatVec wm = hn::Load(d, panel.min + (k / 8 + j) * lanes);
        FATHOM_UNROLL
        for (int i = 0; i < kRows; ++i)
          total[i][j] = hn::NegMulAdd(wm, hn::Set(d, sum[i * (padded / kGroup) + k / kGroup]), total[i][j]);
      }
    }
  }
  StoreSums(total, y, y_stride);
}

template <class Block>
void MatmulQuantised(const Matrix& w, int64_t begin, int64_t end, const ActivationRows& x, float* y,
                     int64_t y_stride) {
  static_assert(kMicroRows <= 8);
  Panel panel;
  const int64_t padded = padded_columns(w.cols);
  const auto pack = [&](int64_t first, int64_t rows, int64_t column, int64_t n) {
    PackPanel<Block>(w, first, rows, column, n, panel);
  };
  const auto multiply = [&](int64_t row, int64_t rows, int64_t column, int64_t n, float* out, int64_t stride) {
    const int64_t at = row * padded + column;
#if FATHOM_BYTES
    const int8_t* q = x.q + at;
    const int64_t q_stride = padded;
#else
    alignas(64) int16_t q[kMicroRows * kPanelColumns];
    const int64_t q_stride = kPanelColumns;
    for (int64_t i = 0; i < rows; ++i) std::copy_n(x.q + at + i * padded, n, q + i * kPanelColumns);
#endif
    const float* sum = kGroupWeights<Block> == 32 ? x.pair_sum + at / 32 : x.sum + at / 16;
    WithRows(rows, [&](auto r) {
      MicroQuantised<Block, decltype(r)::value>(panel, n, column == 0, q, q_stride, x.scale + at / 16, sum, padded,
                                                out, stride);
    });
  };
  ForPanels(w, begin, end, x.rows, y, y_stride, kPanelColumns, pack, multiply);
}

void Matvec(const Matrix& w, int64_t begin, int64_t end, const ActivationRows& x, float* y, int64_t y_stride) {
  FATHOM_BY_TYPE(MatvecQuantised, MatvecFloat)
}
void Matmul(const Matrix& w, int64_t begin, int64_t end, const ActivationRows& x, float* y, int64_t y_stride) {
  FATHOM_BY_TYPE(MatmulQuantised, MatmulFloat)
}

void FillMatmul(Kernels& table) {
  table.quantize_activations = QuantizeActivations;
  table.matvec = Matvec;
  table.matmul = Matmul;
  table.panel_rows = 2 * Lanes();
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
#if HWY_TARGET == HWY_AVX3_DL
#pragma GCC pop_options
#endif
HWY_AFTER_NAMESPACE();
#else
namespace fathom::HWY_NAMESPACE {
void FillMatmul(Kernels& /*table*/) {}  // the machine has no such target: kernels() does not offer it
}  // namespace fathom::HWY_NAMESPACE
#endif

#if HWY_ONCE
namespace fathom {
HWY_EXPORT(FillMatmul);
void fill_vector_matmul(Kernels& table) { HWY_DYNAMIC_DISPATCH(FillMatmul)(table); }
}  // namespace fathom
#endif
