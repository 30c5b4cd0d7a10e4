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

/// The sum of products of 256 unpacked weights with one row of activations, added to `acc` lane by lane.
HWY_INLINE FloatVec DotRun(FloatVec acc, const uint8_t* HWY_RESTRICT q, const float* HWY_RESTRICT scale,
                           const float* HWY_RESTRICT min, const int8_t* HWY_RESTRICT x,
                           const float* HWY_RESTRICT x_scale, const float* HWY_RESTRICT x_sum) {
  const FloatTag d;
#if FATHOM_VNNI
  const IntTag di;
  const auto scales = hn::Mul(hn::Load(d, scale), hn::LoadU(d, x_scale));  // of the 16 groups
  // 64 products a step; four neighbouring lanes hold one group's sums.
  const auto group_of_lane = hn::ShiftRight<2>(hn::Iota(di, 0));
  for (int j = 0; j < 4; ++j) {
    const auto products =
        _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_load_si512(q + 64 * j), _mm512_loadu_si512(x + 64 * j));
    const auto lane_scale =
        hn::TableLookupLanes(scales, hn::IndicesFromVec(d, hn::Add(group_of_lane, hn::Set(di, 4 * j))));
    acc = hn::MulAdd(hn::ConvertTo(d, IntVec{products}), lane_scale, acc);
  }
  return hn::NegMulAdd(hn::Load(d, min), hn::LoadU(d, x_sum), acc);
#else
  const hn::CappedTag<int16_t, 16> d16;
  const hn::Rebind<uint8_t, decltype(d16)> du8;
  const hn::Rebind<int8_t, decltype(d16)> di8;
  const hn::RepartitionToWide<decltype(d16)> di;
  const hn::Rebind<float, decltype(di)> dhalf;  // may be narrower than FloatTag
  auto sums = hn::Zero(dhalf);
  for (int g = 0; g < 16; ++g) {
    auto products = hn::Zero(di);
    auto spare = hn::Zero(di);
    for (int i = 0; i < 16; i += static_cast<int>(hn::Lanes(d16))) {
      const auto w16 = hn::PromoteTo(d16, hn::LoadU(du8, q + 16 * g + i));
      const auto x16 = hn::PromoteTo(d16, hn::LoadU(di8, x + 16 * g + i));
      products = hn::ReorderWidenMulAccumulate(di, w16, x16, products, spare);
    }
    sums = hn::MulAdd(hn::ConvertTo(dhalf, hn::Add(products, spare)), hn::Set(dhalf, scale[g] * x_scale[g]), sums);
  }
  for (int g = 0; g < 16; g += static_cast<int>(hn::Lanes(dhalf))) {
    sums = hn::NegMulAdd(hn::LoadU(dhalf, min + g), hn::LoadU(dhalf, x_sum + g), sums);
  }
#if HWY_TARGET == HWY_AVX3
  return hn::Add(acc, hn::ZeroExtendVector(d, sums));
#else
  return hn::Add(acc, sums);
#endif
#endif
}

template <class Block>
void MatvecQuantised(const Matrix& w, int64_t begin, int64_t end, const ActivationRows& x, float* HWY_RESTRICT y,
                     int64_t y_stride) {
  const FloatTag d;
  const int64_t padded = padded_columns(w.cols);
  alignas(64) uint8_t q[kSuperBlock] = {};
  alignas(64) float scale[16] = {}, min[16] = {};
  alignas(64) float sums[kMatvecRows][16];
  for (int64_t first = 0; first < x.rows; first += kMatvecRows) {
    const int64_t rows = std::min(kMatvecRows, x.rows - first);
    for (int64_t r = begin; r < end; ++r) {
      const auto* blocks = reinterpret_cast<const Block*>(w.row(r));
      for (int64_t i = 0; i < rows; ++i) hn::Store(hn::Zero(d), d, sums[i]);
      for (int64_t k = 0; k < w.cols; k += kSuperBlock) {
        UnpackRun(blocks + k / kBlockWeights<Block>, std::min<int64_t>(kSuperBlock, w.cols - k), q, scale, min);
        for (int64_t i = 0; i < rows; ++i) {
          const int64_t at = (first + i) * padded + k;
          hn::Store(DotRun(hn::Load(d, sums[i]), q, scale, min, x.q + at, x.scale + at / 16, x.sum + at / 16), d,
                    sums[i]);
        }
      }
      for (int64_t i = 0; i < rows; ++i)
        y[(first + i) * y_stride + r] = hn::GetLane(hn::SumOfLanes(d, hn::Load(d, sums[i])));
    }
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
    for (int64_t k = 0; k < n; k += kSuperBlock) {
      const int64_t run = std::min<int64_t>(kSuperBlock, n - k);
      if (r < rows) {
        UnpackRun(reinterpret_cast<const Block*>(w.row(first + r)) + (column + k) / kBlockWeights<Block>, run, q,
                  scale, min);
      } else {
        std::fill_n(q, run, 0);
        std::fill_n(scale, 16, 0.0f);
        std::fill_n(min, 16, 0.0f);
      }
      PanelInt* HWY_RESTRICT values = panel.values + k * panel_rows + r * kStep;
      for (int64_t i = 0; i < run; i += kStep) {
        for (int s = 0; s < kStep; ++s) values[i * panel_rows + s] = q[i + s];
      }
      for (int64_t g = 0; g < run / 16; ++g) {
        panel.scale[(k / 16 + g) * panel_rows + r] = scale[g];
        panel.min[(k / 16 + g) * panel_rows + r] = min[g];
      }
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

#define FATHOM_BY_TYPE(function_quantised, function_float)                   \
  switch (w.type) {                                                          \
    case WeightType::kF32:                                                   \
      return function_float<float>(w, begin, end, x, y, y_stride);           \
    case WeightType::kF16:                                                   \
      return function_float<hwy::float16_t>(w, begin, end, x, y, y_stride);  \
    case WeightType::kBF16:                                                  \
      return function_float<hwy::bfloat16_t>(w, begin, end, x, y, y_stride); \
    case WeightType::kQ8_0:                                                  \
      return function_quantised<BlockQ8_0>(w, begin, end, x, y, y_stride);   \
    case WeightType::kQ4_0:                                                  \
      return function_quantised<BlockQ4_0>(w, begin, end, x, y, y_stride);   \
    case WeightType::kQ4_1:                                                  \
      return function_quantised<BlockQ4_1>(w, begin, end, x, y, y_stride);   \
    case WeightType::kQ5_0:                                                  \
      return function_quantised<BlockQ5_0>(w, begin, end, x, y, y_stride);   \
    case WeightType::kQ5_1:                                                  \
      return function_quantised<BlockQ5_1>(w, begin, end, x, y, y_stride);   \
    case WeightType::kQ2_K:                                                  \
      return function_quantised<BlockQ2_K>(w, begin, end, x, y, y_stride);   \
    case WeightType::kQ3_K:                                                  \
      return function_quantised<BlockQ3_K>(w, begin, end, x, y, y_stride);   \
    case WeightType::kQ4_K:                                                  \
      return function_quantised<BlockQ4_K>(w, begin, end, x, y, y_stride);   \
    case WeightType::kQ5_K:                                                  \
      return function_quantised<BlockQ5_K>(w, begin, end, x, y, y_stride);   \
    case WeightType::kQ6_K:                                                  \
      return function_quantised<BlockQ6_K>(w, begin, end, x, y, y_stride);   \
    case WeightType::kIQ4_NL:                                                \
      return function_quantised<BlockIQ4_NL>(w, begin, end, x, y, y_stride); \
    case WeightType::kIQ4_XS:                                                \
      return function_quantised<BlockIQ4_XS>(w, begin, end, x, y, y_stride); \
  }

void Matvec(const Matrix& w, int64_t begin, int64_t end, const ActivationRows& x, float* y, int64_t y_stride) {
  FATHOM_BY_TYPE(MatvecQuantised, MatvecFloat)
}
void Matmul(const Matrix& w, int64_t begin, int64_t end, const ActivationRows& x, float* y,
            int64_t y_stride){FATHOM_BY_TYPE(MatmulQuantised, MatmulFloat)}

/// 12 sums in flight hide the latency of the multiply-adds; they differ, or the compiler would make one of them.
int64_t Peak(int64_t n, float* sink) {
  constexpr int kSums = 12;
  const IntTag d;
  const auto a = hn::Set(d, 0x01010101);
  IntVec sums[kSums];
  FATHOM_UNROLL
  for (int i = 0; i < kSums; ++i) sums[i] = hn::Set(d, i);
  const int64_t per_round = static_cast<int64_t>(kSums) * Lanes() * kStep;
  int64_t done = 0;
  for (; done < n; done += per_round) {
    FATHOM_UNROLL
    for (int i = 0; i < kSums; ++i) sums[i] = DotStep(sums[i], a, a);
  }
  FATHOM_UNROLL
  for (int i = 0; i < kSums; ++i) *sink += static_cast<float>(hn::GetLane(sums[i]));
  return done;
}

void FillMatmul(Kernels& table) {
  table.peak = Peak;
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
