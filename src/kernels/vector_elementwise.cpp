// Norms, rotations and activations, once per instruction set.
#include "kernels/vector.h"

#include <algorithm>
#include <cmath>
#include <limits>

// Highway requires this order: the target loop first, then what it compiles once per target.
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/vector_elementwise.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "hwy/contrib/math/math-inl.h"
#include "kernels/lanes-inl.h"
#include "kernels/sigmoid-inl.h"
// clang-format on

#if FATHOM_VECTOR_TARGET
HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

/// out[i] = f(x[i], y[i]) for all i. y must be readable even if f ignores it.
template <class F>
HWY_INLINE void Map2(const float* x, const float* y, int64_t n, float* out, const F& f) {
  const FloatTag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(f(hn::LoadU(d, x + i), hn::LoadU(d, y + i)), d, out + i);
  if (i == n) return;
  alignas(64) float a[16] = {}, b[16] = {};
  std::copy_n(x + i, n - i, a);
  std::copy_n(y + i, n - i, b);
  hn::Store(f(hn::Load(d, a), hn::Load(d, b)), d, a);
  std::copy_n(a, n - i, out + i);
}

/// Returns Σ f(x[i]), with four independent sums.
template <class F>
HWY_INLINE float Sum(const float* x, int64_t n, const F& f) {
  const FloatTag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  FloatVec sums[4] = {hn::Zero(d), hn::Zero(d), hn::Zero(d), hn::Zero(d)};
  int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    for (int j = 0; j < 4; ++j) sums[j] = hn::Add(sums[j], f(hn::LoadU(d, x + i + j * lanes)));
  }
  float total = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(sums[0], sums[1]), hn::Add(sums[2], sums[3]))));
  for (; i < n; ++i) total += hn::GetLane(f(hn::Set(d, x[i])));
  return total;
}

void RmsNorm(const float* x, const float* weight, float eps, int64_t n, float* out) {
  const float squares = Sum(x, n, [](auto v) { return hn::Mul(v, v); });
  const auto inverse = hn::Set(FloatTag(), 1.0f / std::sqrt(squares / static_cast<float>(n) + eps));
  Map2(x, weight, n, out, [&](auto v, auto w) { return hn::Mul(hn::Mul(v, inverse), w); });
}

void Add(float* x, const float* y, int64_t n) {
  Map2(x, y, n, x, [](auto a, auto b) { return hn::Add(a, b); });
}

void LayerNorm(const float* x, const float* weight, const float* bias, float eps, int64_t n, float* out) {
  const FloatTag d;
  const auto mean = hn::Set(d, Sum(x, n, [](auto v) { return v; }) / static_cast<float>(n));
  const float squares = Sum(x, n, [&](auto v) { return hn::Mul(hn::Sub(v, mean), hn::Sub(v, mean)); });
  const auto inverse = hn::Set(d, 1.0f / std::sqrt(squares / static_cast<float>(n) + eps));
  Map2(x, weight, n, out, [&](auto v, auto w) { return hn::Mul(hn::Mul(hn::Sub(v, mean), inverse), w); });
  Add(out, bias, n);
}

void RotatePairs(float* HWY_RESTRICT x, const float* HWY_RESTRICT cos, const float* HWY_RESTRICT sin,
                 int64_t pairs) {
  const FloatTag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= pairs; i += lanes) {
    FloatVec even, odd;
    hn::LoadInterleaved2(d, x + 2 * i, even, odd);
    const auto c = hn::LoadU(d, cos + i), s = hn::LoadU(d, sin + i);
    hn::StoreInterleaved2(hn::NegMulAdd(odd, s, hn::Mul(even, c)), hn::MulAdd(even, s, hn::Mul(odd, c)), d,
                          x + 2 * i);
  }
  for (; i < pairs; ++i) {
    const float even = x[2 * i], odd = x[2 * i + 1];
    x[2 * i] = even * cos[i] - odd * sin[i];
    x[2 * i + 1] = even * sin[i] + odd * cos[i];
  }
}

void Swiglu(float* gate, const float* up, int64_t n) {
  Map2(gate, up, n, gate, [](auto g, auto u) { return hn::Mul(hn::Mul(g, Sigmoid(g)), u); });
}

HWY_INLINE FloatVec GeluOf(FloatVec v) {
  // ½v(1 + tanh(u)) = v·sigmoid(2u), u = √(2/π)(v + 0.044715 v³)
  const FloatTag d;
  const auto twice_root = hn::Set(d, 2.0f * 0.7978845608028654f), cubic = hn::Set(d, 0.044715f);
  const auto u = hn::Mul(twice_root, hn::MulAdd(hn::Mul(cubic, hn::Mul(v, v)), v, v));
  return hn::Mul(v, Sigmoid(u));
}

void Gelu(float* x, int64_t n) {
  Map2(x, x, n, x, [](auto v, auto) { return GeluOf(v); });
}

void Geglu(float* gate, const float* up, int64_t n) {
  Map2(gate, up, n, gate, [](auto g, auto u) { return hn::Mul(GeluOf(g), u); });
}

void SwigluOai(float* gate, const float* up, int64_t n) {
  const FloatTag d;
  const auto limit = hn::Set(d, 7.0f), slope = hn::Set(d, 1.702f), one = hn::Set(d, 1.0f);
  Map2(gate, up, n, gate, [&](auto x, auto y) {
    // the limits are the first operands, so that NaN stays NaN on x86, too
    const auto g = hn::Min(limit, x), u = hn::Max(hn::Neg(limit), hn::Min(limit, y));
    return hn::Mul(hn::Mul(g, Sigmoid(hn::Mul(slope, g))), hn::Add(u, one));
  });
}

void Silu(float* x, int64_t n) {
  Map2(x, x, n, x, [](auto v, auto) { return hn::Mul(v, Sigmoid(v)); });
}

void ReluSquared(float* x, int64_t n) {
  Map2(x, x, n, x, [](auto v, auto) {
    const auto positive = hn::Max(hn::Zero(FloatTag()), v);
    return hn::Mul(positive, positive);
  });
}

void Softplus(float* x, int64_t n) {
  const FloatTag d;
  const auto limit = hn::Set(d, 20.0f);
  Map2(x, x, n, x, [&](auto v, auto) {
    const auto soft = hn::Log1p(d, hn::Exp(d, hn::Min(v, limit)));
    return hn::IfThenElse(hn::Le(v, limit), soft, v);
  });
}

void GatedGroupNorm(const float* x, const float* z, const float* weight, float eps, int64_t groups, int64_t width,
                    float* out) {
  for (int64_t g = 0; g < groups; ++g, x += width, z += width, weight += width, out += width) {
    Map2(x, z, width, out, [](auto v, auto gate) { return hn::Mul(v, hn::Mul(gate, Sigmoid(gate))); });
    RmsNorm(out, weight, eps, width, out);
  }
}

float Softmax(float* x, int64_t n) {
  const FloatTag d;
  float largest = -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, x[i]);
  const auto shift = hn::Set(d, largest);
  Map2(x, x, n, x, [&](auto v, auto) { return hn::Exp(d, hn::Sub(v, shift)); });
  const float total = Sum(x, n, [](auto v) { return v; });
  const auto inverse = hn::Set(d, 1.0f / total);
  Map2(x, x, n, x, [&](auto v, auto) { return hn::Mul(v, inverse); });
  return largest + std::log(total);
}

void FillElementwise(Kernels& table) {
  table.rms_norm = RmsNorm;
  table.layer_norm = LayerNorm;
  table.rotate_pairs = RotatePairs;
  table.swiglu = Swiglu;
  table.geglu = Geglu;
  table.swiglu_oai = SwigluOai;
  table.gelu = Gelu;
  table.silu = Silu;
  table.relu_squared = ReluSquared;
  table.softplus = Softplus;
  table.gated_group_norm = GatedGroupNorm;
  table.add = Add;
  table.softmax = Softmax;
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();
#else
namespace fathom::HWY_NAMESPACE {
void FillElementwise(Kernels& /*table*/) {}  // no vector target: kernels() does not list this table
}  // namespace fathom::HWY_NAMESPACE
#endif

#if HWY_ONCE
namespace fathom {
HWY_EXPORT(FillElementwise);
void fill_vector_elementwise(Kernels& table) { HWY_DYNAMIC_DISPATCH(FillElementwise)(table); }
}  // namespace fathom
#endif
