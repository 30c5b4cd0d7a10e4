// Matrix products with k-quants of 2 to 4 bits, once per instruction set.
#include "kernels/vector.h"

// Highway requires this order: the target loop first, then what it compiles once per target.
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/matmul_low_k.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/matmul_groups-inl.h"
#include "kernels/quantised_panels-inl.h"
#include "kernels/quantised_rows-inl.h"
// clang-format on

#if FATHOM_VECTOR_TARGET
HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

void MatvecLowK(const Matrix& w, int64_t begin, int64_t end, const ActivationRows& x, float* y, int64_t y_stride) {
  FATHOM_BY_TYPE(FATHOM_LOW_K_TYPES, MatvecQuantised)
}
void MatmulLowK(const Matrix& w, int64_t begin, int64_t end, const ActivationRows& x, float* y, int64_t y_stride) {
  FATHOM_BY_TYPE(FATHOM_LOW_K_TYPES, MatmulQuantised)
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();
#endif
