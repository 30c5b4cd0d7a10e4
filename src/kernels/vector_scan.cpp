// Convolutions and recurrences of state-space layers, once per instruction set.
#include "kernels/vector.h"

#include <algorithm>
#include <cassert>

// Highway requires this order: the target loop first, then what it compiles once per target.
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/vector_scan.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "hwy/contrib/math/math-inl.h"
#include "kernels/panels-inl.h"
#include "kernels/partial-inl.h"
#include "kernels/sigmoid-inl.h"
// clang-format on

#if FATHOM_VECTOR_TARGET
HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

// Sums of products are written with MulAdd; otherwise the compiler could fuse them differently in different copies
// of a loop.

/// Convolves channels [channel, channel + left), at most one vector of them, for all rows.
template <int kWidth>
HWY_INLINE void ConvVector(const ConvTask& t, int64_t channel, int64_t left) {
  const FloatTag d;
  const int64_t lanes = std::min<int64_t>(left, Lanes());
  FloatVec weight[kWidth], window[kWidth];  // the window: inputs, oldest first
  for (int k = 0; k < kWidth; ++k) {
    alignas(64) float column[16] = {};
    for (int64_t i = 0; i < lanes; ++i) column[i] = t.weight[(channel + i) * kWidth + k];
    weight[k] = hn::Load(d, column);
  }
  const auto bias = t.bias ? LoadUpTo(t.bias + channel, left) : hn::Zero(d);
  for (int k = 1; k < kWidth; ++k) window[k] = LoadUpTo(t.ring + (k - 1) * t.channels + channel, left);
  for (int64_t r = 0; r < t.rows; ++r) {
    FATHOM_UNROLL
    for (int k = 1; k < kWidth; ++k) window[k - 1] = window[k];
    window[kWidth - 1] = LoadUpTo(t.x + r * t.x_stride + channel, left);
    FloatVec sum = bias;
    FATHOM_UNROLL
    for (int k = 0; k < kWidth; ++k) sum = hn::MulAdd(weight[k], window[k], sum);
    if (t.silu) sum = hn::Mul(sum, Sigmoid(sum));
    StoreUpTo(sum, t.y + r * t.y_stride + channel, left);
  }
  for (int k = 1; k < kWidth; ++k) StoreUpTo(window[k], t.ring + (k - 1) * t.channels + channel, left);
}

void CausalConv(const ConvTask& t) {
  assert(t.width >= 1 && t.width <= kMaxConvWidth);
  WithRows<kMaxConvWidth>(t.width, [&](auto width) {
    for (int64_t c = t.begin; c < t.end; c += Lanes()) ConvVector<decltype(width)::value>(t, c, t.end - c);
  });
}

// Rows of the state that share the loads of b and c.
constexpr int kStateRows = 4;

/// h[i] = decay(i, k) · h[i] + input[i] · b for kRows rows h[i] of n elements, and total[i] = Σ h[i] · c; `decay`
/// returns the factors of the vector at element k of row i.
template <int kRows, class Decay>
HWY_INLINE void StepRows(float* HWY_RESTRICT h, int64_t n, const FloatVec (&input)[kRows], const float* b,
                         const float* c, const Decay& decay, FloatVec (&total)[kRows]) {
  const FloatTag d;
  FATHOM_UNROLL
  for (int i = 0; i < kRows; ++i) total[i] = hn::Zero(d);
  for (int64_t k = 0; k < n; k += Lanes()) {
    const auto bk = LoadUpTo(b + k, n - k), ck = LoadUpTo(c + k, n - k);
    FATHOM_UNROLL
    for (int i = 0; i < kRows; ++i) {
      float* at = h + i * n + k;
      const auto state = hn::MulAdd(input[i], bk, hn::Mul(decay(i, k), LoadUpTo(at, n - k)));
      StoreUpTo(state, at, n - k);
      total[i] = hn::MulAdd(state, ck, total[i]);
    }
  }
}

/// Returns the sum of the lanes of total, plus d · x.
HWY_INLINE float Output(FloatVec total, float d, float x) {
  const FloatTag tag;
  return hn::GetLane(hn::MulAdd(hn::Set(tag, d), hn::Set(tag, x), hn::SumOfLanes(tag, total)));
}

template <int kRows>
HWY_NOINLINE void ScanChannels(const SelectiveScan& t, int64_t channel) {
  const FloatTag d;
  const float* a = t.a + channel * t.state;
  for (int64_t r = 0; r < t.rows; ++r) {
    const float* x = t.x + r * t.x_stride + channel;
    const float* dt = t.dt + r * t.dt_stride + channel;
    FloatVec time[kRows], input[kRows], total[kRows];
    FATHOM_UNROLL
    for (int i = 0; i < kRows; ++i) {
      time[i] = hn::Set(d, dt[i]);
      input[i] = hn::Mul(time[i], hn::Set(d, x[i]));
    }
    StepRows(
        t.h + channel * t.state, t.state, input, t.b + r * t.b_stride, t.c + r * t.c_stride,
        [&](int i, int64_t k)
            HWY_ATTR { return hn::Exp(d, hn::Mul(time[i], LoadUpTo(a + i * t.state + k, t.state - k))); },
        total);
    FATHOM_UNROLL
    for (int i = 0; i < kRows; ++i)
      t.y[r * t.y_stride + channel + i] = Output(total[i], t.d ? t.d[channel + i] : 0.0f, x[i]);
  }
}

void SelectiveScanRows(const SelectiveScan& t) {
  for (int64_t c = t.begin; c < t.end; c += kStateRows) {
    WithRows<kStateRows>(std::min<int64_t>(kStateRows, t.end - c),
                         [&](auto rows) { ScanChannels<decltype(rows)::value>(t, c); });
  }
}

template <int kRows>
HWY_INLINE void SsdStep(const SsdHead& t, int64_t r, int64_t p, FloatVec time, FloatVec decay) {
  const FloatTag d;
  const float* x = t.x + r * t.x_stride + p;
  FloatVec input[kRows], total[kRows];
  FATHOM_UNROLL
  for (int i = 0; i < kRows; ++i) input[i] = hn::Mul(time, hn::Set(d, x[i]));
  StepRows(
      t.h + p * t.state, t.state, input, t.b + r * t.b_stride, t.c + r * t.c_stride,
      [&](int, int64_t) HWY_ATTR { return decay; }, total);
  FATHOM_UNROLL
  for (int i = 0; i < kRows; ++i) t.y[r * t.y_stride + p + i] = Output(total[i], t.d, x[i]);
}

void SsdScan(const SsdHead& t) {
  const FloatTag d;
  for (int64_t r = 0; r < t.rows; ++r) {
    const auto time = hn::Set(d, t.dt[r * t.dt_stride]);
    const auto decay = hn::Exp(d, hn::Mul(time, hn::Set(d, t.a)));
    for (int64_t p = 0; p < t.width; p += kStateRows) {
      WithRows<kStateRows>(std::min<int64_t>(kStateRows, t.width - p),
                           [&](auto rows) HWY_ATTR { SsdStep<decltype(rows)::value>(t, r, p, time, decay); });
    }
  }
}

void FillScan(Kernels& table) {
  table.causal_conv = CausalConv;
  table.selective_scan = SelectiveScanRows;
  table.ssd_scan = SsdScan;
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();
#else
namespace fathom::HWY_NAMESPACE {
void FillScan(Kernels& /*table*/) {}  // no vector target: kernels() does not list this table
}  // namespace fathom::HWY_NAMESPACE
#endif

#if HWY_ONCE
namespace fathom {
HWY_EXPORT(FillScan);
void fill_vector_scan(Kernels& table) { HWY_DYNAMIC_DISPATCH(FillScan)(table); }
}  // namespace fathom
#endif
