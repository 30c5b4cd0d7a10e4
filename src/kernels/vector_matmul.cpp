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

// VNNI multiplies four unsigned by four signed bytes a lane; elsewhere pairs of 16-bit numbers do.
#if HWY_TARGET == HWY_AVX3_DL
#undef FATHOM_VNNI
#define FATHOM_VNNI 1
constexpr int kStep = 4;
using PanelInt = uint8_t;
#else
#undef FATHOM_VNNI
#define FATHOM_VNNI 0
constexpr int kStep = 2;
using PanelInt = int16_t;
#endif

// 32 rows of as many bytes, and scales, stay within the L1 cache or the nearest part of the L2.
constexpr int kPanelColumns = 1024;

void QuantizeActivations(const float* HWY_RESTRICT x, int64_t cols, int8_t* HWY_RESTRICT q,
                         float* HWY_RESTRICT scale, float* HWY_RESTRICT sum) {
  const int64_t padded = padded_columns(cols);
  for (int64_t begin = 0; begin < padded; begin += 32) {
    alignas(64) float block[32] = {};
    const int64_t n = std::clamp<int64_t>(cols - begin, 0, 32);
    std::copy_n(x + begin, n, block);
    float largest = 0;
    for (int i = 0; i < 32; ++i) largest = std::max(largest, std::fabs(block[i]));
    const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
    const FloatTag d;
    alignas(64) int32_t rounded[32];
    for (int i = 0; i < 32; i += Lanes()) {
      hn::Store(hn::NearestInt(hn::Mul(hn::Load(d, block + i), hn::Set(d, inverse))), IntTag(), rounded + i);
    }
    const float s = largest / 127.0f;
    for (int half = 0; half < 2; ++half) {
      int32_t total = 0;
      for (int i = 0; i < 16; ++i) {
        q[begin + 16 * half + i] = static_cast<int8_t>(rounded[16 * half + i]);
        total += rounded[16 * half + i];
      }
      scale[begin / 16 + half] = s;
      sum[begin / 16 + half] = s * static_cast<float>(total);
    }
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
#if !FATHOM_VNNI && HWY_ARCH_X86
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

// DotStep: sums += products of kStep weights with kStep activations a lane.
#if FATHOM_VNNI
using MicroInt = int8_t;  // activations as the micro-kernel reads them
HWY_INLINE IntVec LoadWeights(const PanelInt* p) { return IntVec{_mm512_load_si512(p)}; }
HWY_INLINE IntVec LoadStep(const MicroInt* p) {
  int32_t four;
  std::memcpy(&four, p, 4);
  return hn::Set(IntTag(), four);
}
HWY_INLINE IntVec DotStep(IntVec sums, IntVec weights, IntVec activations) {
  return IntVec{_mm512_dpbusd_epi32(sums.raw, weights.raw, activations.raw)};
}
#else
using MicroInt = int16_t;
HWY_INLINE IntVec LoadWeights(const PanelInt* p) {
  return hn::BitCast(IntTag(), hn::Load(hn::Repartition<int16_t, IntTag>(), p));
}
HWY_INLINE IntVec LoadStep(const MicroInt* p) {
  int32_t two;
  std::memcpy(&two, p, 4);
  return hn::Set(IntTag(), two);
}
HWY_INLINE IntVec DotStep(IntVec sums, IntVec weights, IntVec activations) {
  const IntTag d;
  const hn::Repartition<int16_t, IntTag> d16;
  const auto w = hn::BitCast(d16, weights), a = hn::BitCast(d16, activations);
  auto odd = hn::Zero(d);
#if HWY_ARCH_X86  // the products of neighbours are added in their lane, and nothing goes to `odd`
  return hn::ReorderWidenMulAccumulate(d, w, a, sums, odd);
#else
  const auto even = hn::ReorderWidenMulAccumulate(d, w, a, hn::Zero(d), odd);
  return hn::Add(sums, hn::RearrangeToOddPlusEven(even, odd));
#endif
}
#endif

/// y[i, 0 … panel rows) += products of the panel with kRows rows of activations; kGroup weights share a scale.
template <int kRows, int kGroup>
HWY_NOINLINE void MicroQuantised(const Panel& panel, int64_t n, const MicroInt* HWY_RESTRICT q, int64_t q_stride,
                                 const float* HWY_RESTRICT scale, const float* HWY_RESTRICT sum,
                                 int64_t scale_stride, float* HWY_RESTRICT y, int64_t y_stride) {
  const FloatTag d;
  const int64_t lanes = Lanes();
  FloatVec total[kRows][2];
  LoadSums(y, y_stride, total);
  const PanelInt* HWY_RESTRICT weights = panel.values;
  for (int64_t k = 0; k < n; k += kGroup) {
    IntVec dots[kRows][2];
    FATHOM_UNROLL
    for (int i = 0; i < kRows; ++i) dots[i][0] = dots[i][1] = hn::Zero(IntTag());
    for (int step = 0; step < kGroup / kStep; ++step) {
      const IntVec w0 = LoadWeights(weights), w1 = LoadWeights(weights + lanes * kStep);
      weights += 2 * lanes * kStep;
      FATHOM_UNROLL
      for (int i = 0; i < kRows; ++i) {
        const IntVec a = LoadStep(q + i * q_stride + k + step * kStep);
        dots[i][0] = DotStep(dots[i][0], w0, a);
        dots[i][1] = DotStep(dots[i][1], w1, a);
      }
    }
    const int64_t g = k / 16;
    FATHOM_UNROLL
    for (int j = 0; j < 2; ++j) {
      const FloatVec ws = hn::Load(d, panel.scale + (2 * g + j) * lanes),
                     wm = hn::Load(d, panel.min + (2 * g + j) * lanes);
      FATHOM_UNROLL
      for (int i = 0; i < kRows; ++i) {
        const float* s = scale + i * scale_stride + g;
        const float* m = sum + i * scale_stride + g;
        const float x_sum = kGroup == 16 ? m[0] : m[0] + m[1];
        total[i][j] = hn::MulAdd(hn::ConvertTo(d, dots[i][j]), hn::Mul(ws, hn::Set(d, s[0])), total[i][j]);
        total[i][j] = hn::NegMulAdd(wm, hn::Set(d, x_sum), total[i][j]);
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
#if FATHOM_VNNI
    const int8_t* q = x.q + at;
    const int64_t q_stride = padded;
#else
    alignas(64) int16_t q[kMicroRows * kPanelColumns];
    const int64_t q_stride = kPanelColumns;
    for (int64_t i = 0; i < rows; ++i) std::copy_n(x.q + at + i * padded, n, q + i * kPanelColumns);
#endif
    WithRows(rows, [&](auto r) {
      MicroQuantised<decltype(r)::value, kGroupWeights<Block>>(panel, n, q, q_stride, x.scale + at / 16,
                                                               x.sum + at / 16, padded / 16, out, stride);
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
