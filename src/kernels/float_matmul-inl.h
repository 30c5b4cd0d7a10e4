// Matrix products with float weights (F32, F16, BF16) and float activations. Included inside Highway's target loop.
#if defined(FATHOM_FLOAT_MATMUL_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_FLOAT_MATMUL_INL
#undef FATHOM_FLOAT_MATMUL_INL
#else
#define FATHOM_FLOAT_MATMUL_INL
#endif

#include <cstring>

#include "kernels/panels-inl.h"
#include "kernels/unpack-inl.h"

#if FATHOM_VECTOR_TARGET
HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

constexpr int kFloatPanelColumns = 256;  // 32 rows of floats stay in the L1 cache

/// LoadFloats and LoadFloat load a vector of weights, or one weight, of a float type as float.
HWY_INLINE FloatVec LoadFloats(const float* p) { return hn::LoadU(FloatTag(), p); }
HWY_INLINE FloatVec LoadFloats(const hwy::float16_t* p) {
  return hn::PromoteTo(FloatTag(), hn::LoadU(hn::Rebind<hwy::float16_t, FloatTag>(), p));
}
HWY_INLINE FloatVec LoadFloats(const hwy::bfloat16_t* p) {
  return hn::PromoteTo(FloatTag(), hn::LoadU(hn::Rebind<hwy::bfloat16_t, FloatTag>(), p));
}
HWY_INLINE float LoadFloat(const float* p) { return *p; }
HWY_INLINE float LoadFloat(const hwy::float16_t* p) {
  uint16_t bits;
  std::memcpy(&bits, p, 2);
  return HalfToFloat(bits);
}
HWY_INLINE float LoadFloat(const hwy::bfloat16_t* p) { return hwy::F32FromBF16(*p); }

template <class T>
void MatvecFloat(const Matrix& w, int64_t begin, int64_t end, const ActivationRows& x, float* HWY_RESTRICT y,
                 int64_t y_stride) {
  const FloatTag d;
  const int64_t lanes = Lanes(), whole = w.cols / (4 * lanes) * (4 * lanes);
  for (int64_t r = begin; r < end; ++r) {
    const T* HWY_RESTRICT weights = reinterpret_cast<const T*>(w.row(r));
    for (int64_t i = 0; i < x.rows; ++i) {
      const float* HWY_RESTRICT row = x.f32 + i * w.cols;
      FloatVec sums[4] = {hn::Zero(d), hn::Zero(d), hn::Zero(d), hn::Zero(d)};
      for (int64_t k = 0; k < whole; k += 4 * lanes) {
        for (int j = 0; j < 4; ++j)
          sums[j] = hn::MulAdd(LoadFloats(weights + k + j * lanes), hn::LoadU(d, row + k + j * lanes), sums[j]);
      }
      float total = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(sums[0], sums[1]), hn::Add(sums[2], sums[3]))));
      for (int64_t k = whole; k < w.cols; ++k) total += LoadFloat(weights + k) * row[k];
      y[i * y_stride + r] = total;
    }
  }
}

/// y[i, 0 … panel rows) = (if `first`) or += products of a float panel [n, panel rows] with kRows rows of
/// activations.
template <int kRows>
HWY_NOINLINE void MicroFloat(const float* HWY_RESTRICT panel, int64_t n, bool first, const float* HWY_RESTRICT x,
                             int64_t x_stride, float* HWY_RESTRICT y, int64_t y_stride) {
  const FloatTag d;
  const int64_t lanes = Lanes();
  FloatVec total[kRows][2];
  LoadSums(first, y, y_stride, total);
  for (int64_t k = 0; k < n; ++k) {
    const FloatVec w0 = hn::Load(d, panel), w1 = hn::Load(d, panel + lanes);
    panel += 2 * lanes;
    FATHOM_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const FloatVec a = hn::Set(d, x[i * x_stride + k]);
      total[i][0] = hn::MulAdd(w0, a, total[i][0]);
      total[i][1] = hn::MulAdd(w1, a, total[i][1]);
    }
  }
  StoreSums(total, y, y_stride);
}

template <class T>
void MatmulFloat(const Matrix& w, int64_t begin, int64_t end, const ActivationRows& x, float* y, int64_t y_stride) {
  const int64_t panel_rows = 2 * Lanes();
  alignas(64) float panel[kFloatPanelColumns * kMaxPanelRows];
  const auto pack = [&](int64_t first, int64_t rows, int64_t column, int64_t n) {
    for (int64_t r = 0; r < panel_rows; ++r) {
      const T* weights = r < rows ? reinterpret_cast<const T*>(w.row(first + r)) + column : nullptr;
      for (int64_t k = 0; k < n; ++k) panel[k * panel_rows + r] = weights ? LoadFloat(weights + k) : 0.0f;
    }
  };
  const auto multiply = [&](int64_t row, int64_t rows, int64_t column, int64_t n, float* out, int64_t stride) {
    WithRows(rows, [&](auto r) {
      MicroFloat<decltype(r)::value>(panel, n, column == 0, x.f32 + row * w.cols + column, w.cols, out, stride);
    });
  };
  ForPanels(w, begin, end, x.rows, y, y_stride, kFloatPanelColumns, pack, multiply);
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();
#endif

#endif
