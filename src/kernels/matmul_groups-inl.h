// Declares the products of each group of weight types (FATHOM_*_TYPES), which are defined in the group's source
// file matmul_*.cpp for every instruction set. Included inside Highway's target loop.
#if defined(FATHOM_MATMUL_GROUPS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_MATMUL_GROUPS_INL
#undef FATHOM_MATMUL_GROUPS_INL
#else
#define FATHOM_MATMUL_GROUPS_INL
#endif

#include "kernels/unpack-inl.h"

#if FATHOM_VECTOR_TARGET
HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

/// Like Kernels::matvec and Kernels::matmul, for a matrix whose type is in the group.
using GroupProduct = void(const Matrix& w, int64_t begin, int64_t end, const ActivationRows& x, float* y,
                          int64_t y_stride);
GroupProduct MatvecFloats, MatmulFloats;
GroupProduct MatvecSmallBlocks, MatmulSmallBlocks;
GroupProduct MatvecLowK, MatmulLowK;
GroupProduct MatvecHighK, MatmulHighK;

#ifndef FATHOM_BY_GROUP
/// Calls the product of the group that the type of w is in; product: Matvec or Matmul.
#define FATHOM_BY_GROUP(product)                                \
  switch (w.type) {                                             \
    FATHOM_FLOAT_TYPES(FATHOM_TYPE_LABEL, )                     \
    return product##Floats(w, begin, end, x, y, y_stride);      \
    FATHOM_SMALL_BLOCK_TYPES(FATHOM_TYPE_LABEL, )               \
    return product##SmallBlocks(w, begin, end, x, y, y_stride); \
    FATHOM_LOW_K_TYPES(FATHOM_TYPE_LABEL, )                     \
    return product##LowK(w, begin, end, x, y, y_stride);        \
    FATHOM_HIGH_K_TYPES(FATHOM_TYPE_LABEL, )                    \
    return product##HighK(w, begin, end, x, y, y_stride);       \
  }
#endif

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();
#endif
#endif
