// Gradients of norms, activations and softmax, once per instruction set.
#include "kernels/vector.h"

#include <algorithm>
#include <cmath>

// Highway requires this order: the target loop first, then what it compiles once per target.
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/vector_gradients.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/lanes-inl.h"
#include "kernels/sigmoid-inl.h"
// clang-format on

#if FATHOM_VECTOR_TARGET
HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

/// Loads and stores `count` floats from `at` on, a vector or less. Missing lanes are loaded as 0 and not stored.
struct VectorPart {
  int64_t at, count;
  bool whole;
  HWY_INLINE FloatVec Load(const float* x) const {
    const FloatTag d;
    if (whole) return hn::LoadU(d, x + at);
    alignas(64) float copy[16] = {};
    std::copy_n(x + at, count, copy);
    return hn::Load(d, copy);
  }
  HWY_INLINE void Store(FloatVec v, float* x) const {
    const FloatTag d;
    if (whole) return hn::StoreU(v, d, x + at);
    alignas(64) float copy[16];
    hn::Store(v, d, copy);
    std::copy_n(copy, count, x + at);
  }
};

/// Calls f(part) for n floats, one vector at a time; the last vector may be partial.
template <class F>
HWY_INLINE void ForParts(int64_t n, const F& f) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(FloatTag()));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) f(VectorPart{i, lanes, true});
  if (i < n) f(VectorPart{i, n - i, false});
}

void RmsNormBackward(const float* x, const float* weight, const float* dy, float eps, int64_t n, float* dx,
                     float* dweight) {
  const FloatTag d;
  FloatVec squares = hn::Zero(d), dot = hn::Zero(d);
  ForParts(n, [&](const VectorPart& at) {
    const auto v = at.Load(x);
    squares = hn::MulAdd(v, v, squares);
    dot = hn::MulAdd(hn::Mul(at.Load(weight), at.Load(dy)), v, dot);
  });
  const auto count = static_cast<float>(n);
  const float inverse = 1.0f / std::sqrt(hn::GetLane(hn::SumOfLanes(d, squares)) / count + eps);
  const auto scale = hn::Set(d, inverse);
  const auto correction = hn::Set(d, inverse * inverse * inverse * hn::GetLane(hn::SumOfLanes(d, dot)) / count);
  ForParts(n, [&](const VectorPart& at) {
    const auto v = at.Load(x), up = hn::Mul(at.Load(dy), scale);
    at.Store(hn::MulAdd(up, v, at.Load(dweight)), dweight);
    at.Store(hn::NegMulAdd(v, correction, hn::Mul(at.Load(weight), up)), dx);
  });
}

void SwigluBackward(const float* gate, const float* up, const float* dy, int64_t n, float* dgate, float* dup) {
  const FloatTag d;
  const auto one = hn::Set(d, 1.0f);
  ForParts(n, [&](const VectorPart& at) {
    const auto g = at.Load(gate), u = at.Load(up), dv = at.Load(dy);
    const auto sigmoid = Sigmoid(g);
    const auto through = hn::Mul(dv, sigmoid);
    at.Store(hn::Mul(through, g), dup);
    at.Store(hn::Mul(hn::Mul(through, u), hn::MulAdd(g, hn::Sub(one, sigmoid), one)), dgate);
  });
}

/// Returns exp(x) within a relative error of 3e-7; 0 below about −87. x ≤ 88.
HWY_INLINE FloatVec Power(FloatVec x) {
  const FloatTag d;
  const auto smallest = hn::Set(d, -87.0f);
  const auto whole = hn::Round(hn::Mul(x, hn::Set(d, 1.44269504f)));
  // x − whole·ln 2, with ln 2 split into two parts, is at most 0.35: the series of e^x up to the sixth power is
  // enough
  const auto rest =
      hn::NegMulAdd(whole, hn::Set(d, -2.12194440e-4f), hn::NegMulAdd(whole, hn::Set(d, 0.693359375f), x));
  auto sum = hn::Set(d, 1.0f / 720);
  for (const float term : {1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) {
    sum = hn::MulAdd(sum, rest, hn::Set(d, term));
  }
  const auto power = hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(IntTag(), whole), hn::Set(IntTag(), 127)));
  const auto result = hn::Mul(sum, hn::BitCast(d, power));
  return hn::IfThenZeroElse(hn::Lt(x, smallest), result);  // NaN stays NaN
}

void SoftmaxBackward(float lse, float dy_dot_p, int64_t n, float* x, float* dy) {
  const FloatTag d;
  const auto total = hn::Set(d, lse), shift = hn::Set(d, dy_dot_p);
  ForParts(n, [&](const VectorPart& at) {
    const auto p = Power(hn::Sub(at.Load(x), total));
    at.Store(p, x);
    at.Store(hn::Mul(p, hn::Sub(at.Load(dy), shift)), dy);
  });
}

float Exponentials(float* x, int64_t n, float* sum) {
  const FloatTag d;
  const auto lanes = static_cast<int64_t>(Lanes());
  const int64_t whole = n / lanes * lanes;
  float largest = x[0];
  if (whole > 0) {
    FloatVec most = hn::LoadU(d, x);
    for (int64_t i = lanes; i < whole; i += lanes) most = hn::Max(most, hn::LoadU(d, x + i));
    largest = hn::GetLane(hn::MaxOfLanes(d, most));
  }
  for (int64_t i = whole; i < n; ++i) largest = std::max(largest, x[i]);
  const auto shift = hn::Set(d, largest);
  FloatVec total = hn::Zero(d);
  for (int64_t i = 0; i < whole; i += lanes) {
    const auto p = Power(hn::Sub(hn::LoadU(d, x + i), shift));
    total = hn::Add(total, p);
    hn::StoreU(p, d, x + i);
  }
  *sum = hn::GetLane(hn::SumOfLanes(d, total));
  for (int64_t i = whole; i < n; ++i) {
    x[i] = hn::GetLane(Power(hn::Set(d, x[i] - largest)));
    *sum += x[i];
  }
  return largest;
}

void Scale(float* x, float factor, int64_t n) {
  const auto by = hn::Set(FloatTag(), factor);
  ForParts(n, [&](const VectorPart& at) { at.Store(hn::Mul(at.Load(x), by), x); });
}

void FillGradients(Kernels& table) {
  table.rms_norm_backward = RmsNormBackward;
  table.swiglu_backward = SwigluBackward;
  table.softmax_backward = SoftmaxBackward;
  table.exponentials = Exponentials;
  table.scale = Scale;
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();
#else
namespace fathom::HWY_NAMESPACE {
void FillGradients(Kernels& /*table*/) {}  // no vector target: kernels() does not list this table
}  // namespace fathom::HWY_NAMESPACE
#endif

#if HWY_ONCE
namespace fathom {
HWY_EXPORT(FillGradients);
void fill_vector_gradients(Kernels& table) { HWY_DYNAMIC_DISPATCH(FillGradients)(table); }
}  // namespace fathom
#endif
