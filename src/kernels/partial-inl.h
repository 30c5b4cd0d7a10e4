// Loads and stores of partial vectors at the end of a row. Included inside Highway's target loop.
#if defined(FATHOM_PARTIAL_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_PARTIAL_INL
#undef FATHOM_PARTIAL_INL
#else
#define FATHOM_PARTIAL_INL
#endif

#include <algorithm>
#include <cstdint>

#include "kernels/lanes-inl.h"

#if FATHOM_VECTOR_TARGET
HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

/// Returns the first `left` floats at p, padded with zeros; a whole vector if `left` ≥ Lanes().
HWY_INLINE FloatVec LoadUpTo(const float* p, int64_t left) {
  const FloatTag d;
  if (HWY_LIKELY(left >= Lanes())) return hn::LoadU(d, p);
  alignas(64) float part[16] = {};
  std::copy_n(p, left, part);
  return hn::Load(d, part);
}

/// Stores the first `left` floats of v; the whole vector if `left` ≥ Lanes().
HWY_INLINE void StoreUpTo(FloatVec v, float* p, int64_t left) {
  const FloatTag d;
  if (HWY_LIKELY(left >= Lanes())) {
    hn::StoreU(v, d, p);
    return;
  }
  alignas(64) float part[16];
  hn::Store(v, d, part);
  std::copy_n(part, left, p);
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();
#endif

#endif
