// e^x for attention. Included inside Highway's target loop.
#if defined(FATHOM_EXP_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_EXP_INL
#undef FATHOM_EXP_INL
#else
#define FATHOM_EXP_INL
#endif

#include "kernels/lanes-inl.h"

#if FATHOM_VECTOR_TARGET
HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

/// Returns exp(x) for x ≤ 0: 2^n · 2^f with f in [−½, ½] by a polynomial whose relative error is at most 8e-8
/// (Remez). Returns 0 below −87, where floats lose their precision.
HWY_INLINE FloatVec Exp(FloatVec x) {
  const FloatTag d;
  const auto log2e = hn::Set(d, 1.44269504f);
  const auto magic = hn::Set(d, 0x1.8p23f + 127.0f);  // its sum with n has n + 127 in the lowest bits
  const auto shifted = hn::MulAdd(x, log2e, magic);
  const auto f = hn::MulSub(x, log2e, hn::Sub(shifted, magic));
  auto p = hn::Set(d, 0x1.5c08e6p-10f);
  p = hn::MulAdd(p, f, hn::Set(d, 0x1.3d0c52p-7f));
  p = hn::MulAdd(p, f, hn::Set(d, 0x1.c6b6e4p-5f));
  p = hn::MulAdd(p, f, hn::Set(d, 0x1.ebf918p-3f));
  p = hn::MulAdd(p, f, hn::Set(d, 0x1.62e428p-1f));
  p = hn::MulAdd(p, f, hn::Set(d, 0x1.000002p+0f));
  const auto power = hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(IntTag(), shifted)));
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -87.0f)), hn::Mul(p, power));
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();
#endif

#endif
