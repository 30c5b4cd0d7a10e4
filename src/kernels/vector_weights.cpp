// Attention weights other than e^score, once per instruction set: softplus with re-weighting, and capped scores.
#include "kernels/vector.h"

#include <algorithm>
#include <cmath>
#include <limits>

// Highway requires this order: the target loop first, then what it compiles once per target.
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/vector_weights.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "hwy/contrib/math/math-inl.h"
#include "kernels/exp-inl.h"
// clang-format on

#if FATHOM_VECTOR_TARGET
HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

/// Returns ln(1 + t) for t in [0, 1]: t times a polynomial through the Chebyshev points of that range, with a
/// relative error of at most 1.2e-7.
HWY_INLINE FloatVec LogOnePlus(FloatVec t) {
  const FloatTag d;
  auto p = hn::Set(d, -0x1.a04acap-9f);
  p = hn::MulAdd(p, t, hn::Set(d, 0x1.402f4cp-6f));
  p = hn::MulAdd(p, t, hn::Set(d, -0x1.cdd008p-5f));
  p = hn::MulAdd(p, t, hn::Set(d, 0x1.afdde8p-4f));
  p = hn::MulAdd(p, t, hn::Set(d, -0x1.38b908p-3f));
  p = hn::MulAdd(p, t, hn::Set(d, 0x1.92b43p-3f));
  p = hn::MulAdd(p, t, hn::Set(d, -0x1.ff0254p-3f));
  p = hn::MulAdd(p, t, hn::Set(d, 0x1.554bd6p-2f));
  p = hn::MulAdd(p, t, hn::Set(d, -0x1.ffffb8p-2f));
  p = hn::MulAdd(p, t, hn::Set(d, 1.0f));
  return hn::Mul(p, t);
}

void SoftplusWeights(const float* constants, const float* query, int64_t count, float* HWY_RESTRICT scores) {
  const FloatTag d;
  constexpr float kLowScore = -15;  // below it, ln(1 + e^x) equals e^x to the precision of floats
  const SoftplusQuery row = query ? SoftplusQuery{query[0], query[1], query[2]} : SoftplusQuery{};
  // Used for scores above kLowScore. If lse is below it, all scores are below it and do not use the factor.
  const auto factor = hn::Set(d, row.tokens * std::exp(-std::max(row.lse, kLowScore - 1)));
  const auto lse = hn::Set(d, row.lse), tokens = hn::Set(d, row.tokens), offset = hn::Set(d, row.offset);
  const auto power = hn::Set(d, query ? constants[0] : 0.0f), zero = hn::Zero(d);
  for (int64_t t = 0; t < count; t += Lanes()) {
    const auto x = hn::LoadU(d, scores + t);
    const auto is_low = hn::Lt(x, hn::Set(d, kLowScore));
    const auto softplus = hn::Add(hn::Max(x, zero), LogOnePlus(Exp(hn::Neg(hn::Abs(x)))));
    FloatVec log_weight;
    if (!query) {
      log_weight = hn::IfThenElse(is_low, x, hn::Log(d, softplus));
    } else {
      const auto low_share = hn::Mul(tokens, Exp(hn::Min(hn::Sub(x, lse), zero)));
      const auto above = hn::Sub(hn::IfThenElse(is_low, low_share, hn::Mul(softplus, factor)), offset);
      log_weight = hn::IfThenElse(hn::Gt(above, zero), hn::Mul(power, hn::Log(d, above)),
                                  hn::Set(d, -std::numeric_limits<float>::infinity()));
    }
    hn::StoreU(log_weight, d, scores + t);
  }
}

void CappedWeights(const float* constants, const float* /*query*/, int64_t count, float* HWY_RESTRICT scores) {
  const FloatTag d;
  const auto cap = hn::Set(d, constants[0]), inverse = hn::Set(d, 1 / constants[0]);
  for (int64_t t = 0; t < count; t += Lanes()) {
    const auto x = hn::Mul(hn::LoadU(d, scores + t), inverse);
    hn::StoreU(hn::Mul(cap, hn::Tanh(d, x)), d, scores + t);
  }
}

void FillWeights(Kernels& table) {
  table.softplus_weights = SoftplusWeights;
  table.capped_weights = CappedWeights;
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();
#else
namespace fathom::HWY_NAMESPACE {
void FillWeights(Kernels& /*table*/) {}  // no vector target: kernels() does not list this table
}  // namespace fathom::HWY_NAMESPACE
#endif

#if HWY_ONCE
namespace fathom {
HWY_EXPORT(FillWeights);
void fill_vector_weights(Kernels& table) { HWY_DYNAMIC_DISPATCH(FillWeights)(table); }
}  // namespace fathom
#endif
