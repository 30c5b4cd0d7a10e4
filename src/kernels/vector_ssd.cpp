// Mamba-2 by matrix products (the dual form of its recurrence), once per instruction set.
//
// With l[i] = Σ_{k ≤ i} dt[k]·a the log-decay since the start of a block, and H the state before it:
//   y[i]  = e^l[i] · c[i]·H + Σ_{j ≤ i} c[i]·b[j] · e^(l[i] − l[j]) · dt[j] x[j]  (+ d x[i])
//   H'    = e^l[last] · H + Σ_j e^(l[last] − l[j]) · b[j]ᵀ dt[j] x[j]
// No exponent is above 0. The columns of all products are `width`: the state is kept transposed during a call, so
// that only b is packed.
#include "kernels/vector.h"

#include <algorithm>
#include <cassert>
#include <cmath>

// Highway requires this order: the target loop first, then what it compiles once per target.
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/vector_ssd.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "hwy/contrib/math/math-inl.h"
#include "kernels/panels-inl.h"
#include "kernels/partial-inl.h"
#include "kernels/transpose-inl.h"
// clang-format on

#if FATHOM_VECTOR_TARGET
HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

static_assert(kSsdBlock % kMaxPanelRows == 0);

// Rows of a product that a micro-kernel computes with two vectors of columns: enough independent sums to hide the
// latency of the multiply-add, within the registers (32 or 16).
#if HWY_TARGET == HWY_AVX3_DL || HWY_TARGET == HWY_AVX3
constexpr int kSsdRows = 8;
#else
constexpr int kSsdRows = 4;
#endif

// Log-decays are clamped to this, so that their sums keep their precision: e^x is 0 in float below −104.
constexpr double kMinLog = -128;

/// sums[kRows, two vectors] += a·b over `depth` steps. a[i, k] at a[i·stride + k], or transposed at a[k·stride +
/// i].
template <int kRows, bool kTransposed>
HWY_INLINE void AddProducts(const float* HWY_RESTRICT a, int64_t stride, const float* HWY_RESTRICT b,
                            int64_t b_stride, int64_t depth, FloatVec (&sums)[kRows][2]) {
  const FloatTag d;
  constexpr int kGroups = (kRows + 2) / 3;
  const float* group[kGroups];  // a pointer per three rows: more pointers would not fit into registers
  for (int g = 0; g < kGroups; ++g) group[g] = a + 3 * g * stride;
  for (int64_t k = 0; k < depth; ++k) {
    const FloatVec b0 = hn::Load(d, b), b1 = hn::Load(d, b + Lanes());
    b += b_stride;
    FATHOM_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const FloatVec v = hn::Set(d, kTransposed ? a[i] : group[i / 3][i % 3 * stride]);
      sums[i][0] = hn::MulAdd(b0, v, sums[i][0]);
      sums[i][1] = hn::MulAdd(b1, v, sums[i][1]);
    }
    if constexpr (kTransposed) {
      a += stride;
    } else {
      FATHOM_UNROLL
      for (int g = 0; g < kGroups; ++g) ++group[g];
    }
  }
}

/// to[c, r] = from[r, c] for r < 4 and c < 4.
HWY_INLINE void TransposeFours(const float* from, int64_t stride, float* to, int64_t to_stride) {
  const hn::FixedTag<float, 4> d;
  const auto a = hn::LoadU(d, from), b = hn::LoadU(d, from + stride);
  const auto e = hn::LoadU(d, from + 2 * stride), f = hn::LoadU(d, from + 3 * stride);
  const auto ab_low = hn::InterleaveLower(d, a, b), ab_high = hn::InterleaveUpper(d, a, b);
  const auto ef_low = hn::InterleaveLower(d, e, f), ef_high = hn::InterleaveUpper(d, e, f);
  hn::StoreU(hn::ConcatLowerLower(d, ef_low, ab_low), d, to);
  hn::StoreU(hn::ConcatUpperUpper(d, ef_low, ab_low), d, to + to_stride);
  hn::StoreU(hn::ConcatLowerLower(d, ef_high, ab_high), d, to + 2 * to_stride);
  hn::StoreU(hn::ConcatUpperUpper(d, ef_high, ab_high), d, to + 3 * to_stride);
}

/// to[c, r] = from[r, c] for r < rows and c < cols.
HWY_INLINE void TransposeFloats(const float* HWY_RESTRICT from, int64_t stride, int64_t rows, int64_t cols,
                                float* HWY_RESTRICT to, int64_t to_stride) {
  constexpr int64_t kTile = 16;  // a cache line, so that each line is written as a whole
  for (int64_t first = 0; first < cols; first += kTile) {
    const int64_t end = std::min(first + kTile, cols);
    int64_t r = 0;
#if HWY_TARGET == HWY_AVX3_DL || HWY_TARGET == HWY_AVX3
    for (; r + kTile <= rows && first + kTile <= cols; r += kTile) {
      __m512i tile[kTile];
      FATHOM_UNROLL
      for (int i = 0; i < kTile; ++i) tile[i] = _mm512_loadu_si512(from + (r + i) * stride + first);
      Transpose(tile);
      FATHOM_UNROLL
      for (int i = 0; i < kTile; ++i) _mm512_storeu_si512(to + (first + i) * to_stride + r, tile[i]);
    }
#endif
    for (; r + 4 <= rows; r += 4) {
      int64_t c = first;
      for (; c + 4 <= end; c += 4) TransposeFours(from + r * stride + c, stride, to + c * to_stride + r, to_stride);
      for (; c < end; ++c) {
        for (int i = 0; i < 4; ++i) to[c * to_stride + r + i] = from[(r + i) * stride + c];
      }
    }
    for (; r < rows; ++r) {
      for (int64_t c = first; c < end; ++c) to[c * to_stride + r] = from[r * stride + c];
    }
  }
}

/// out[i, j] = c[i]·b[j] for j ≤ i, for up to kSsdBlock rows; out: [rows, kSsdBlock]. transposed_b: scratch,
/// [state, kSsdBlock].
HWY_NOINLINE void MultiplyRowsOfBlock(const float* c, int64_t c_stride, const float* b, int64_t b_stride,
                                      int64_t rows, int64_t state, float* HWY_RESTRICT transposed_b,
                                      float* HWY_RESTRICT out) {
  const FloatTag d;
  if (rows < kSsdBlock) std::fill_n(transposed_b, state * kSsdBlock, 0.0f);
  TransposeFloats(b, b_stride, rows, state, transposed_b, kSsdBlock);
  for (int64_t i = 0; i < rows; i += kSsdRows) {
    WithRows<kSsdRows>(std::min<int64_t>(kSsdRows, rows - i), [&](auto count) HWY_ATTR {
      constexpr int kCount = decltype(count)::value;
      for (int64_t j = 0; j < i + kCount; j += 2 * Lanes()) {
        FloatVec sums[kCount][2];
        LoadSums(true, out, 0, sums);
        AddProducts<kCount, false>(c + i * c_stride, c_stride, transposed_b + j, kSsdBlock, state, sums);
        StoreSums(sums, out + i * kSsdBlock + j, kSsdBlock);
      }
    });
  }
}

/// The arguments of one call of ssd_chunk, and the parts of its scratch.
struct SsdScratch {
  HWY_INLINE SsdScratch(const SsdHead& head, float* scratch)
      : t(head),
        padded((head.width + 31) / 32 * 32),
        h(scratch),
        x(h + head.state * padded),
        transposed_b(x + kSsdBlock * padded),
        mix(transposed_b + head.state * kSsdBlock) {}

  const SsdHead& t;
  int64_t padded;       // columns of h and x, padded with zeros
  float* h;             // [state, padded]: the state, transposed
  float* x;             // [kSsdBlock, padded]: dt·x; for the new state, times the decay up to the end of the block
  float* transposed_b;  // [state, kSsdBlock]
  float* mix;           // [kSsdBlock, kSsdBlock]: c·b times the decays; 0 above the diagonal
};

/// logs[i] = Σ_{k ≤ i} of the log-decays of rows [first, first + rows).
HWY_INLINE void CumulateLogs(const SsdHead& t, int64_t first, int64_t rows, double* logs) {
  double sum = 0;
  for (int64_t i = 0; i < rows; ++i) {
    sum += std::max(static_cast<double>(t.dt[(first + i) * t.dt_stride]) * t.a, kMinLog);
    logs[i] = sum;
  }
}

/// out[j] = e^(from − logs[j]), or e^(logs[j] − from) if `negated`, for j < count, rounded up to whole vectors.
HWY_INLINE void Decays(const double* logs, double from, bool negated, int64_t count, float* HWY_RESTRICT out) {
  const FloatTag d;
  const double sign = negated ? -1 : 1;
  count = hwy::RoundUpTo(count, Lanes());
  for (int64_t j = 0; j < count; ++j) out[j] = static_cast<float>(sign * (from - logs[j]));
  for (int64_t j = 0; j < count; j += Lanes())
    hn::Store(hn::Exp(d, hn::Min(hn::Load(d, out + j), hn::Zero(d))), d, out + j);
}

HWY_INLINE void ScaleRow(float* row, int64_t n, float factor) {
  const FloatTag d;
  const auto f = hn::Set(d, factor);
  for (int64_t k = 0; k < n; k += Lanes()) hn::Store(hn::Mul(hn::Load(d, row + k), f), d, row + k);
}

/// Sets work.x to dt·x of the block.
HWY_INLINE void LoadInputs(const SsdScratch& work, int64_t first, int64_t rows) {
  const SsdHead& t = work.t;
  for (int64_t i = 0; i < rows; ++i) {
    float* to = work.x + i * work.padded;
    std::copy_n(t.x + (first + i) * t.x_stride, t.width, to);
    std::fill(to + t.width, to + work.padded, 0.0f);
    ScaleRow(to, work.padded, t.dt[(first + i) * t.dt_stride]);
  }
}

/// Computes work.mix from the products of the block and its decays.
HWY_INLINE void Mix(const SsdScratch& work, const float* products, int64_t rows, const double* logs) {
  const FloatTag d;
  alignas(64) float decay[kSsdBlock];
  for (int64_t i = 0; i < rows; ++i) {
    Decays(logs, logs[i], false, i + 1, decay);
    for (int64_t j = 0; j < kSsdBlock; j += Lanes()) {
      FloatVec value = hn::Zero(d);
      if (j <= i) {
        const auto visible = hn::FirstN(d, static_cast<size_t>(std::min<int64_t>(i + 1 - j, Lanes())));
        value = hn::IfThenElseZero(visible,
                                   hn::Mul(hn::LoadU(d, products + i * kSsdBlock + j), hn::Load(d, decay + j)));
      }
      hn::Store(value, d, work.mix + i * kSsdBlock + j);
    }
  }
}

/// Computes y for rows [row, row + kRows) of the block and columns [p, p + two vectors).
template <int kRows>
HWY_INLINE void OutputTile(const SsdScratch& work, int64_t first, int64_t row, int64_t p, const float* decay) {
  const FloatTag d;
  const SsdHead& t = work.t;
  FloatVec sums[kRows][2];
  LoadSums(true, work.h, 0, sums);
  AddProducts<kRows, false>(t.c + (first + row) * t.c_stride, t.c_stride, work.h + p, work.padded, t.state, sums);
  FATHOM_UNROLL
  for (int i = 0; i < kRows; ++i) {
    const auto factor = hn::Set(d, decay[row + i]);
    sums[i][0] = hn::Mul(sums[i][0], factor);
    sums[i][1] = hn::Mul(sums[i][1], factor);
  }
  AddProducts<kRows, false>(work.mix + row * kSsdBlock, kSsdBlock, work.x + p, work.padded, row + kRows, sums);
  const auto skip = hn::Set(d, t.d);
  FATHOM_UNROLL
  for (int i = 0; i < kRows; ++i) {
    FATHOM_UNROLL
    for (int v = 0; v < 2; ++v) {
      const int64_t at = p + v * Lanes(), left = t.width - at;
      if (left <= 0) continue;
      const int64_t r = first + row + i;
      const auto x = LoadUpTo(t.x + r * t.x_stride + at, left);
      StoreUpTo(hn::MulAdd(skip, x, sums[i][v]), t.y + r * t.y_stride + at, left);
    }
  }
}

HWY_NOINLINE void Outputs(const SsdScratch& work, int64_t first, int64_t rows, const double* logs) {
  alignas(64) float decay[kSsdBlock];
  Decays(logs, 0, true, rows, decay);
  for (int64_t p = 0; p < work.padded; p += 2 * Lanes()) {
    for (int64_t i = 0; i < rows; i += kSsdRows) {
      WithRows<kSsdRows>(std::min<int64_t>(kSsdRows, rows - i), [&](auto count) HWY_ATTR {
        OutputTile<decltype(count)::value>(work, first, i, p, decay);
      });
    }
  }
}

/// Updates work.h to the state after the block.
HWY_NOINLINE void UpdateState(const SsdScratch& work, int64_t first, int64_t rows, const double* logs) {
  const FloatTag d;
  const SsdHead& t = work.t;
  alignas(64) float decay[kSsdBlock];
  Decays(logs, logs[rows - 1], false, rows, decay);
  for (int64_t j = 0; j < rows; ++j) ScaleRow(work.x + j * work.padded, work.padded, decay[j]);
  alignas(64) float whole[kSsdBlock];
  Decays(logs, 0, true, rows, whole);
  const auto factor = hn::Set(d, whole[rows - 1]);
  for (int64_t p = 0; p < work.padded; p += 2 * Lanes()) {
    for (int64_t n = 0; n < t.state; n += kSsdRows) {
      WithRows<kSsdRows>(std::min<int64_t>(kSsdRows, t.state - n), [&](auto count) HWY_ATTR {
        constexpr int kCount = decltype(count)::value;
        float* h = work.h + n * work.padded + p;
        FloatVec sums[kCount][2];
        LoadSums(false, h, work.padded, sums);
        FATHOM_UNROLL
        for (int i = 0; i < kCount; ++i) {
          sums[i][0] = hn::Mul(sums[i][0], factor);
          sums[i][1] = hn::Mul(sums[i][1], factor);
        }
        AddProducts<kCount, true>(t.b + first * t.b_stride + n, t.b_stride, work.x + p, work.padded, rows, sums);
        StoreSums(sums, h, work.padded);
      });
    }
  }
}

void SsdChunk(const SsdHead& t, float* scratch) {
  assert(t.a <= 0);
  const SsdScratch work(t, scratch);
  if (t.width % 32 != 0) std::fill_n(work.h, t.state * work.padded, 0.0f);
  TransposeFloats(t.h, t.state, t.width, t.state, work.h, work.padded);
  for (int64_t first = 0; first < t.rows; first += kSsdBlock) {
    const int64_t rows = std::min(kSsdBlock, t.rows - first);
    double logs[kSsdBlock] = {};
    CumulateLogs(t, first, rows, logs);
    LoadInputs(work, first, rows);
    const float* products = t.products ? t.products + first * kSsdBlock : work.mix;
    if (!t.products) {
      MultiplyRowsOfBlock(t.c + first * t.c_stride, t.c_stride, t.b + first * t.b_stride, t.b_stride, rows, t.state,
                          work.transposed_b, work.mix);
    }
    Mix(work, products, rows, logs);
    Outputs(work, first, rows, logs);
    UpdateState(work, first, rows, logs);
  }
  TransposeFloats(work.h, work.padded, t.state, t.width, t.h, t.state);
}

void SsdProductsOfBlocks(const SsdProducts& t, float* scratch) {
  for (int64_t first = 0; first < t.rows; first += kSsdBlock) {
    MultiplyRowsOfBlock(t.c + first * t.c_stride, t.c_stride, t.b + first * t.b_stride, t.b_stride,
                        std::min(kSsdBlock, t.rows - first), t.state, scratch, t.products + first * kSsdBlock);
  }
}

void FillSsd(Kernels& table) {
  table.ssd_chunk = SsdChunk;
  table.ssd_products = SsdProductsOfBlocks;
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();
#else
namespace fathom::HWY_NAMESPACE {
void FillSsd(Kernels& /*table*/) {}  // no vector target: kernels() does not list this table
}  // namespace fathom::HWY_NAMESPACE
#endif

#if HWY_ONCE
namespace fathom {
HWY_EXPORT(FillSsd);
void fill_vector_ssd(Kernels& table) { HWY_DYNAMIC_DISPATCH(FillSsd)(table); }
}  // namespace fathom
#endif
