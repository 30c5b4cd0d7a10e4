// Products of quantised weights with many rows of activations (prefill): a panel of rows of W is unpacked in the
// order in which the multiply-add instructions read it, then multiplied with all rows of activations. Included
// inside Highway's target loop.
#if defined(FATHOM_QUANTISED_PANELS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_QUANTISED_PANELS_INL
#undef FATHOM_QUANTISED_PANELS_INL
#else
#define FATHOM_QUANTISED_PANELS_INL
#endif

#include "kernels/byte_products-inl.h"
#include "kernels/transpose-inl.h"

#if FATHOM_VECTOR_TARGET
HWY_BEFORE_NAMESPACE();
// Highway's AVX3_DL checks for VNNI at run time, but its compiler attributes (1.0.3) lack the 512-bit instructions.
#if HWY_TARGET == HWY_AVX3_DL
#pragma GCC push_options
#pragma GCC target("avx512vnni")
#endif
namespace fathom {
namespace HWY_NAMESPACE {

#if FATHOM_BYTES
constexpr int kStep = 4;  // columns that one instruction multiplies per lane
using PanelInt = uint8_t;
#else
constexpr int kStep = 2;
using PanelInt = int16_t;
#endif

// Columns of a panel. A panel of 32 rows, with its scales, stays in the L1 cache, or partly in the L2.
constexpr int kPanelColumns = 1024;

/// A panel of rows of W, unpacked: values [columns/kStep, panel rows, kStep], scales and mins [columns/16, panel
/// rows].
struct QuantisedPanel {
  alignas(64) PanelInt values[kPanelColumns * kMaxPanelRows];
  alignas(64) float scale[kPanelColumns / 16 * kMaxPanelRows];
  alignas(64) float min[kPanelColumns / 16 * kMaxPanelRows];
};

#if FATHOM_VNNI
/// Unpacks rows [first, first + rows) and columns [column, column + n) of W; missing rows of the panel are zero. 16
/// rows at a time are transposed in registers.
template <class Block>
void PackPanel(const Matrix& w, int64_t first, int64_t rows, int64_t column, int64_t n, QuantisedPanel& panel) {
  constexpr int64_t kBlocks = kSuperBlock / kBlockWeights<Block>;
  const size_t stride = row_bytes(w.type, w.cols);
  for (int64_t half = 0; half < kMaxPanelRows; half += 16) {
    for (int64_t k = 0; k < n; k += kSuperBlock) {
      const int64_t columns = std::min<int64_t>(kSuperBlock, n - k);
      Block padded[16][kBlocks];
      const Block* from[16];
      for (int64_t i = 0; i < 16; ++i) {
        const bool exists = half + i < rows;
        from[i] = reinterpret_cast<const Block*>(w.data + (first + half + i) * stride) +
                  (column + k) / kBlockWeights<Block>;
        if (exists && columns == kSuperBlock) continue;
        std::memset(padded[i], 0, sizeof padded[i]);
        if (exists) std::copy_n(from[i], columns / kBlockWeights<Block>, padded[i]);
        from[i] = padded[i];
      }
      __m512i words[16];
      for (int chunk = 0; chunk < 4; ++chunk) {
        FATHOM_UNROLL
        for (int i = 0; i < 16; ++i) words[i] = QuantsAt(from[i], chunk, 0).raw;
        Transpose(words);
        PanelInt* values = panel.values + (k + 64 * chunk) * kMaxPanelRows + half * kStep;
        FATHOM_UNROLL
        for (int i = 0; i < 16; ++i) _mm512_store_si512(values + i * kMaxPanelRows * kStep, words[i]);
      }
      __m512i mins[16];
      FATHOM_UNROLL
      for (int i = 0; i < 16; ++i) {
        const GroupScales scales = ScalesOf(from[i]);
        words[i] = _mm512_castps_si512(scales.scale[0].raw);
        mins[i] = _mm512_castps_si512(scales.min[0].raw);
      }
      Transpose(words);
      Transpose(mins);
      FATHOM_UNROLL
      for (int i = 0; i < 16; ++i) {
        const int64_t at = (k / 16 + i) * kMaxPanelRows + half;
        _mm512_store_si512(panel.scale + at, words[i]);
        _mm512_store_si512(panel.min + at, mins[i]);
      }
    }
  }
}
#else
/// Unpacks rows [first, first + rows) and columns [column, column + n) of W; missing rows of the panel are zero.
template <class Block>
void PackPanel(const Matrix& w, int64_t first, int64_t rows, int64_t column, int64_t n, QuantisedPanel& panel) {
  const int64_t panel_rows = 2 * Lanes();
  alignas(64) uint8_t q[kSuperBlock];
  alignas(64) float scale[16], min[16];
  for (int64_t r = 0; r < panel_rows; ++r) {
    const auto put = [&](int64_t k, int64_t columns) {
      PanelInt* HWY_RESTRICT values = panel.values + k * panel_rows + r * kStep;
      for (int64_t i = 0; i < columns; i += kStep) {
        for (int s = 0; s < kStep; ++s) values[i * panel_rows + s] = q[i + s];
      }
      for (int64_t g = 0; g < columns / 16; ++g) {
        panel.scale[(k / 16 + g) * panel_rows + r] = scale[g];
        panel.min[(k / 16 + g) * panel_rows + r] = min[g];
      }
    };
    if (r < rows) {
      const Block* row = reinterpret_cast<const Block*>(w.row(first + r)) + column / kBlockWeights<Block>;
      ForSuperBlocks(row, n, [&](const Block* HWY_RESTRICT b, int64_t k) {
        UnpackSuperBlock(b, q, scale, min);
        put(k, std::min<int64_t>(kSuperBlock, n - k));
      });
    } else {
      std::fill_n(q, kSuperBlock, 0);
      std::fill_n(scale, 16, 0.0f);
      std::fill_n(min, 16, 0.0f);
      for (int64_t k = 0; k < n; k += kSuperBlock) put(k, std::min<int64_t>(kSuperBlock, n - k));
    }
  }
}
#endif

/// Broadcasts the activations that one step multiplies (four, or two on targets without byte products) to every
/// lane.
template <class T>
HWY_INLINE IntVec LoadStep(const T* p) {
  int32_t bits;
  std::memcpy(&bits, p, 4);
  return hn::Set(IntTag(), bits);
}

// DotGroup: sets dots to the products of the panel's next kGroup columns with kRows rows of activations.
#if FATHOM_VNNI
using MicroInt = int8_t;  // activations as the micro-kernel reads them

template <class Block, int kRows>
HWY_INLINE void DotGroup(const PanelInt* HWY_RESTRICT weights, const MicroInt* HWY_RESTRICT q, int64_t q_stride,
                         IntVec (&dots)[kRows][2]) {
  FATHOM_UNROLL
  for (int i = 0; i < kRows; ++i) dots[i][0] = dots[i][1] = hn::Zero(IntTag());
  FATHOM_UNROLL
  for (int step = 0; step < kGroupWeights<Block> / kStep; ++step) {
    const __m512i w0 = LoadBytes(weights + 128 * step), w1 = LoadBytes(weights + 128 * step + 64);
    FATHOM_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const IntVec a = LoadStep(q + i * q_stride + ActivationAt(step * kStep));
      dots[i][0].raw = _mm512_dpbusd_epi32(dots[i][0].raw, w0, a.raw);
      dots[i][1].raw = _mm512_dpbusd_epi32(dots[i][1].raw, w1, a.raw);
    }
  }
}
#elif FATHOM_BYTES
using MicroInt = int8_t;

template <class Block, int kRows>
HWY_INLINE void DotGroup(const PanelInt* HWY_RESTRICT weights, const MicroInt* HWY_RESTRICT q, int64_t q_stride,
                         IntVec (&dots)[kRows][2]) {
  constexpr int kSteps = kGroupWeights<Block> / kStep, kNarrow = std::min(kNarrowSteps<Block>, kSteps);
  constexpr int kBytes = HWY_MAX_BYTES;
  FATHOM_UNROLL
  for (int begin = 0; begin < kSteps; begin += kNarrow) {
    ByteVec narrow[kRows][2];
    FATHOM_UNROLL
    for (int step = begin; step < begin + kNarrow; ++step) {
      ByteVec w0 = LoadBytes(weights + 2 * kBytes * step), w1 = LoadBytes(weights + 2 * kBytes * step + kBytes);
      ByteVec sign0 = w0, sign1 = w1;
      if constexpr (kDotSigned<Block>) {
        sign0 = Signed(w0);
        sign1 = Signed(w1);
        w0 = Magnitude(sign0);
        w1 = Magnitude(sign1);
      }
      FATHOM_UNROLL
      for (int i = 0; i < kRows; ++i) {
        const ByteVec a = LoadStep(q + i * q_stride + ActivationAt(step * kStep)).raw;
        const ByteVec p0 = MultiplyBytes(w0, kDotSigned<Block> ? WithSignOf(a, sign0) : a);
        const ByteVec p1 = MultiplyBytes(w1, kDotSigned<Block> ? WithSignOf(a, sign1) : a);
        narrow[i][0] = step == begin ? p0 : Add16(narrow[i][0], p0);
        narrow[i][1] = step == begin ? p1 : Add16(narrow[i][1], p1);
      }
    }
    FATHOM_UNROLL
    for (int i = 0; i < kRows; ++i) {
      FATHOM_UNROLL
      for (int j = 0; j < 2; ++j) {
        const ByteVec wide = Widen(narrow[i][j]);
        dots[i][j].raw = begin == 0 ? wide : Add32(dots[i][j].raw, wide);
      }
    }
  }
}
#else
using MicroInt = int16_t;

template <class Block, int kRows>
HWY_INLINE void DotGroup(const PanelInt* HWY_RESTRICT weights, const MicroInt* HWY_RESTRICT q, int64_t q_stride,
                         IntVec (&dots)[kRows][2]) {
  const IntTag d;
  const hn::Repartition<int16_t, IntTag> d16;
  FATHOM_UNROLL
  for (int i = 0; i < kRows; ++i) dots[i][0] = dots[i][1] = hn::Zero(d);
  for (int step = 0; step < kGroupWeights<Block> / kStep; ++step) {
    FATHOM_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const auto a = hn::BitCast(d16, LoadStep(q + i * q_stride + ActivationAt(step * kStep)));
      FATHOM_UNROLL
      for (int j = 0; j < 2; ++j) {
        const auto w = hn::Load(d16, weights + (2 * step + j) * Lanes() * kStep);
        auto odd = hn::Zero(d);
        const auto even = hn::ReorderWidenMulAccumulate(d, w, a, hn::Zero(d), odd);
        dots[i][j] = hn::Add(dots[i][j], hn::RearrangeToOddPlusEven(even, odd));
      }
    }
  }
}
#endif

/// y[i, 0 … panel rows) = (if `first`) or += products of the panel with kRows rows of activations.
template <class Block, int kRows>
HWY_NOINLINE void MicroQuantised(const QuantisedPanel& panel, int64_t n, bool first, const MicroInt* HWY_RESTRICT q,
                                 int64_t q_stride, const float* HWY_RESTRICT scale, const float* HWY_RESTRICT sum,
                                 int64_t padded, float* HWY_RESTRICT y, int64_t y_stride) {
  constexpr int kGroup = kGroupWeights<Block>;
  const FloatTag d;
  const int64_t lanes = Lanes();
  FloatVec total[kRows][2];
  LoadSums(first, y, y_stride, total);
  for (int64_t k = 0; k < n; k += kGroup) {
    IntVec dots[kRows][2];
    DotGroup<Block>(panel.values + 2 * lanes * k, q + ActivationAt(k), q_stride, dots);
    FATHOM_UNROLL
    for (int j = 0; j < 2; ++j) {
      const FloatVec ws = hn::Load(d, panel.scale + (k / 8 + j) * lanes);
      FATHOM_UNROLL
      for (int i = 0; i < kRows; ++i) {
        const auto xs = hn::Set(d, scale[i * (padded / 16) + k / 16]);
        total[i][j] = hn::MulAdd(hn::ConvertTo(d, dots[i][j]), hn::Mul(ws, xs), total[i][j]);
      }
      if constexpr (!kDotSigned<Block>) {
        const FloatVec wm = hn::Load(d, panel.min + (k / 8 + j) * lanes);
        FATHOM_UNROLL
        for (int i = 0; i < kRows; ++i)
          total[i][j] = hn::NegMulAdd(wm, hn::Set(d, sum[i * (padded / kGroup) + k / kGroup]), total[i][j]);
      }
    }
  }
  StoreSums(total, y, y_stride);
}

template <class Block>
void MatmulQuantised(const Matrix& w, int64_t begin, int64_t end, const ActivationRows& x, float* y,
                     int64_t y_stride) {
  static_assert(kMicroRows <= 8);
  QuantisedPanel panel;
  const int64_t padded = padded_columns(w.cols);
  const auto pack = [&](int64_t first, int64_t rows, int64_t column, int64_t n) {
    PackPanel<Block>(w, first, rows, column, n, panel);
  };
  const auto multiply = [&](int64_t row, int64_t rows, int64_t column, int64_t n, float* out, int64_t stride) {
    const int64_t at = row * padded + column;
#if FATHOM_BYTES
    const int8_t* q = x.q + at;
    const int64_t q_stride = padded;
#else
    alignas(64) int16_t q[kMicroRows * kPanelColumns];
    const int64_t q_stride = kPanelColumns;
    for (int64_t i = 0; i < rows; ++i) std::copy_n(x.q + at + i * padded, n, q + i * kPanelColumns);
#endif
    const float* sum = kGroupWeights<Block> == 32 ? x.pair_sum + at / 32 : x.sum + at / 16;
    WithRows(rows, [&](auto r) {
      MicroQuantised<Block, decltype(r)::value>(panel, n, column == 0, q, q_stride, x.scale + at / 16, sum, padded,
                                                out, stride);
    });
  };
  ForPanels(w, begin, end, x.rows, y, y_stride, kPanelColumns, pack, multiply);
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
#if HWY_TARGET == HWY_AVX3_DL
#pragma GCC pop_options
#endif
HWY_AFTER_NAMESPACE();
#endif

#endif
