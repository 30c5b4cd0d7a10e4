// Transposes values that are dimensions of keys from a tile of keys to rows of values. Included inside Highway's
// target loop.
#if defined(FATHOM_VALUE_ROWS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_VALUE_ROWS_INL
#undef FATHOM_VALUE_ROWS_INL
#else
#define FATHOM_VALUE_ROWS_INL
#endif

#include <cstdint>

#include "kernels/lanes-inl.h"

#if FATHOM_VECTOR_TARGET
HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

/// Stores lanes [4m, 4m + 4) of a vector in row 4m of `to`.
template <class D>
HWY_INLINE void StoreFours(D d, hn::Vec<D> v, float* HWY_RESTRICT to, int64_t stride) {
  if constexpr (hn::MaxLanes(D()) == 4) {
    hn::StoreU(v, d, to);
  } else {
    const hn::Half<D> half;
    StoreFours(half, hn::LowerHalf(half, v), to, stride);
    StoreFours(half, hn::UpperHalf(half, v), to + hn::MaxLanes(half) * stride, stride);
  }
}

/// Transposes four dimensions of Lanes() tokens. dims: rows of 64 tokens; to: a row of `stride` floats for each
/// token.
HWY_INLINE void FourDimensions(const float* HWY_RESTRICT dims, float* HWY_RESTRICT to, int64_t stride) {
  const FloatTag d;
  const hn::Repartition<double, FloatTag> d64;
  const auto v0 = hn::Load(d, dims), v1 = hn::Load(d, dims + kPageTokens), v2 = hn::Load(d, dims + 2 * kPageTokens),
             v3 = hn::Load(d, dims + 3 * kPageTokens);
  const auto low01 = hn::BitCast(d64, hn::InterleaveLower(d, v0, v1)),
             low23 = hn::BitCast(d64, hn::InterleaveLower(d, v2, v3)),
             high01 = hn::BitCast(d64, hn::InterleaveUpper(d, v0, v1)),
             high23 = hn::BitCast(d64, hn::InterleaveUpper(d, v2, v3));
  // 128-bit block m of the i-th vector stored: token 4m + i
  StoreFours(d, hn::BitCast(d, hn::InterleaveLower(d64, low01, low23)), to, stride);
  StoreFours(d, hn::BitCast(d, hn::InterleaveUpper(d64, low01, low23)), to + stride, stride);
  StoreFours(d, hn::BitCast(d, hn::InterleaveLower(d64, high01, high23)), to + 2 * stride, stride);
  StoreFours(d, hn::BitCast(d, hn::InterleaveUpper(d64, high01, high23)), to + 3 * stride, stride);
}

/// Transposes rows of a key tile. dims: [value_dim, 64]; values: [64, value_dim].
HWY_NOINLINE inline void ValueRows(const float* HWY_RESTRICT dims, int value_dim, float* HWY_RESTRICT values) {
  // a few tokens at a time, so that their rows stay in the L1 cache while they are filled
  for (int t = 0; t < kPageTokens; t += Lanes()) {
    float* to = values + static_cast<int64_t>(t) * value_dim;
    int c = 0;
    for (; c + 4 <= value_dim; c += 4)
      FourDimensions(dims + static_cast<int64_t>(c) * kPageTokens + t, to + c, value_dim);
    for (; c < value_dim; ++c) {
      for (int i = 0; i < Lanes(); ++i)
        to[static_cast<int64_t>(i) * value_dim + c] = dims[static_cast<int64_t>(c) * kPageTokens + t + i];
    }
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();
#endif

#endif
