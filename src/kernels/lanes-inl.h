// The vector types of all kernels. Included inside Highway's target loop.
#if defined(FATHOM_LANES_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_LANES_INL
#undef FATHOM_LANES_INL
#else
#define FATHOM_LANES_INL
#endif

#include <cstdint>

#include "hwy/highway.h"
#include "kernels/vector.h"

#if FATHOM_VECTOR_TARGET
HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// At most 16 lanes: panels and pages are laid out for vectors of up to 64 bytes, the widest of all targets.
using FloatTag = hn::CappedTag<float, 16>;
using FloatVec = hn::Vec<FloatTag>;
using IntTag = hn::Rebind<int32_t, FloatTag>;
using IntVec = hn::Vec<IntTag>;
using WordTag = hn::Rebind<uint32_t, FloatTag>;
using WordVec = hn::Vec<WordTag>;
inline int Lanes() { return static_cast<int>(hn::Lanes(FloatTag())); }

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();
#endif

#endif
