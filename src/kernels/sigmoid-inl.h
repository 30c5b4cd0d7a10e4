// The sigmoid function, for all activations. Included inside Highway's target loop.
#if defined(FATHOM_SIGMOID_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_SIGMOID_INL
#undef FATHOM_SIGMOID_INL
#else
#define FATHOM_SIGMOID_INL
#endif

#include "hwy/contrib/math/math-inl.h"
#include "kernels/lanes-inl.h"

#if FATHOM_VECTOR_TARGET
HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

/// Returns 1 / (1 + e⁻ᵛ).
HWY_INLINE FloatVec Sigmoid(FloatVec v) {
  const FloatTag d;
  const auto one = hn::Set(d, 1.0f);
  const auto exponent = hn::Min(hn::Neg(v), hn::Set(d, 88.0f));  // hn::Exp is wrong above 104
  return hn::Div(one, hn::Add(one, hn::Exp(d, exponent)));
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();
#endif

#endif
