// Matrix products, once per instruction set: quantisation of activations, and the choice of the product by weight
// type. The products themselves are in matmul_*.cpp.
#include "kernels/vector.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

// Highway requires this order: the target loop first, then what it compiles once per target.
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/vector_matmul.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/matmul_groups-inl.h"
#include "kernels/interleaved_quants-inl.h"
// clang-format on

#if FATHOM_VECTOR_TARGET
HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

#if HWY_MAX_BYTES == 64
HWY_INLINE void StoreQuants(hn::Vec<hn::Rebind<int8_t, IntTag>> quants, int vector, int8_t* HWY_RESTRICT q) {
  const hn::FixedTag<int8_t, 8> half;
  hn::StoreU(hn::LowerHalf(quants), half, q + interleaved_column(16 * vector));
  hn::StoreU(hn::UpperHalf(half, quants), half, q + interleaved_column(16 * vector + 8));
}
#else
HWY_INLINE void StoreQuants(hn::Vec<hn::Rebind<int8_t, IntTag>> quants, int vector, int8_t* HWY_RESTRICT q) {
  hn::StoreU(quants, hn::Rebind<int8_t, IntTag>(), q + vector * Lanes());
}
#endif

/// Quantises 32 activations to 8 bits; see QuantizeActivations.
HWY_INLINE void QuantizeBlock(const float* HWY_RESTRICT x, int8_t* HWY_RESTRICT q, float* HWY_RESTRICT scale,
                              float* HWY_RESTRICT sum, float* HWY_RESTRICT pair_sum) {
  const FloatTag d;
  const IntTag di;
  constexpr int kLanes = HWY_MAX_BYTES / 4, kVectors = 32 / kLanes;
  FloatVec values[kVectors];
  auto largest = hn::Zero(d);
  FATHOM_UNROLL
  for (int i = 0; i < kVectors; ++i) {
    values[i] = hn::LoadU(d, x + i * kLanes);
    largest = hn::Max(largest, hn::Abs(values[i]));
  }
  const float most = hn::GetLane(hn::MaxOfLanes(d, largest));
  const auto inverse = hn::Set(d, most > 0 ? 127.0f / most : 0.0f);
  IntVec totals[2] = {hn::Zero(di), hn::Zero(di)};
  FATHOM_UNROLL
  for (int i = 0; i < kVectors; ++i) {
    const IntVec rounded = hn::NearestInt(hn::Mul(values[i], inverse));
    StoreQuants(hn::DemoteTo(hn::Rebind<int8_t, IntTag>(), rounded), i, q);
    totals[2 * i / kVectors] = hn::Add(totals[2 * i / kVectors], rounded);
  }
  const float s = most / 127.0f;
  const int32_t first = hn::GetLane(hn::SumOfLanes(di, totals[0]));
  const int32_t second = hn::GetLane(hn::SumOfLanes(di, totals[1]));
  scale[0] = scale[1] = s;
  sum[0] = s * static_cast<float>(first);
  sum[1] = s * static_cast<float>(second);
  *pair_sum = s * static_cast<float>(first + second);
}

void QuantizeActivations(const float* HWY_RESTRICT x, int64_t cols, int8_t* HWY_RESTRICT q,
                         float* HWY_RESTRICT scale, float* HWY_RESTRICT sum, float* HWY_RESTRICT pair_sum) {
  const int64_t padded = padded_columns(cols);
  for (int64_t k = 0; k < padded; k += 32) {
    alignas(64) float last[32] = {};
    const float* from = x + k;
    if (cols - k < 32) {
      if (k < cols) std::copy(from, x + cols, last);
      from = last;
    }
    QuantizeBlock(from, q + ActivationAt(k), scale + k / 16, sum + k / 16, pair_sum + k / 32);
  }
}

void Matvec(const Matrix& w, int64_t begin, int64_t end, const ActivationRows& x, float* y, int64_t y_stride) {
  FATHOM_BY_GROUP(Matvec)
}
void Matmul(const Matrix& w, int64_t begin, int64_t end, const ActivationRows& x, float* y, int64_t y_stride) {
  FATHOM_BY_GROUP(Matmul)
}

void FillMatmul(Kernels& table) {
  table.quantize_activations = QuantizeActivations;
  table.interleaved_activations = HWY_MAX_BYTES == 64;
  table.matvec = Matvec;
  table.matmul = Matmul;
  table.panel_rows = 2 * Lanes();
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();
#else
namespace fathom::HWY_NAMESPACE {
void FillMatmul(Kernels& /*table*/) {}  // no vector target: kernels() does not list this table
}  // namespace fathom::HWY_NAMESPACE
#endif

#if HWY_ONCE
namespace fathom {
HWY_EXPORT(FillMatmul);
void fill_vector_matmul(Kernels& table) { HWY_DYNAMIC_DISPATCH(FillMatmul)(table); }
}  // namespace fathom
#endif
