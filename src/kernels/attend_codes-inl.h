// Products of attention with quantised pages (PageFormat): few queries meet the codes as 16-bit integers, many a
// tile of floats. Included inside Highway's target loop.
#if defined(FATHOM_ATTEND_CODES_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_ATTEND_CODES_INL
#undef FATHOM_ATTEND_CODES_INL
#else
#define FATHOM_ATTEND_CODES_INL
#endif

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "hwy/highway.h"
#include "kernels/attend_floats-inl.h"
#include "kernels/pages.h"

#if FATHOM_VECTOR_TARGET
HWY_BEFORE_NAMESPACE();
// Highway's AVX3_DL checks for VNNI at run time, but its compiler attributes (1.0.3) lack the 512-bit instructions.
#if HWY_TARGET == HWY_AVX3_DL
#pragma GCC push_options
#pragma GCC target("avx512vnni")
#endif
namespace fathom {
namespace HWY_NAMESPACE {

template <int kBits>
constexpr int kPairsOfWord = 16 / kBits;
template <int kBits>
constexpr uint32_t kCodePairMask = ((1u << kBits) - 1) * 0x10001u;
/// A code of this value would mean 0; it lies between two codes.
template <int kBits>
constexpr float kCodeZero = static_cast<float>((1 << kBits) - 1) / 2;

HWY_INLINE float LoadBf16(uint16_t bits) {
  const uint32_t word = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &word, 4);
  return value;
}
HWY_INLINE FloatVec LoadBf16s(const uint16_t* p) {
  const auto words = hn::PromoteTo(WordTag(), hn::LoadU(hn::Rebind<uint16_t, FloatTag>(), p));
  return hn::BitCast(FloatTag(), hn::ShiftLeft<16>(words));
}

/// sums += products of a lane's two codes with a lane's two 16-bit numbers.
HWY_INLINE IntVec DotPair(IntVec sums, WordVec codes, IntVec numbers) {
#if HWY_TARGET == HWY_AVX3_DL
  return IntVec{_mm512_dpwssd_epi32(sums.raw, codes.raw, numbers.raw)};
#else
  const IntTag d;
  const hn::Repartition<int16_t, IntTag> d16;
  const auto c = hn::BitCast(d16, codes), n = hn::BitCast(d16, numbers);
  auto odd = hn::Zero(d);
#if HWY_ARCH_X86  // the products of neighbours are added in their lane, and nothing goes to `odd`
  return hn::ReorderWidenMulAccumulate(d, c, n, sums, odd);
#else
  const auto even = hn::ReorderWidenMulAccumulate(d, c, n, hn::Zero(d), odd);
  return hn::Add(sums, hn::RearrangeToOddPlusEven(even, odd));
#endif
#endif
}

/// Rows of numbers rounded to 16 bits, as few queries meet codes: x = q · scale.
struct RoundedRows {
  alignas(64) int16_t q[kTileQueries][kPageTokens];
  float scale[kTileQueries];
  int32_t start[kTileQueries];  // −Σ q · kCodeZero: where sums of q · code begin
};

/// Rounds n numbers of x · factor (null: 1), n a multiple of 32 and at most 64, to row i of `rows`.
template <int kBits>
HWY_INLINE void RoundRow(const float* HWY_RESTRICT x, const float* HWY_RESTRICT factor, int n, int i,
                         RoundedRows& rows) {
  const FloatTag d;
  const IntTag di;
  const int lanes = Lanes();
  const auto at = [&](int k) {
    const auto v = hn::LoadU(d, x + k);
    return factor ? hn::Mul(v, hn::LoadU(d, factor + k)) : v;
  };
  auto largest = hn::Zero(d);
  for (int k = 0; k < n; k += lanes) largest = hn::Max(largest, hn::Abs(at(k)));
  const float most = hn::GetLane(hn::MaxOfLanes(d, largest));
  constexpr float kTiny = 1e-30f;  // what is smaller is 0, so that the inverse stays finite
  const auto inverse = hn::Set(d, most > kTiny ? 32767.0f / most : 0.0f);
  auto sum = hn::Zero(di);
  for (int k = 0; k < n; k += lanes) {
    const auto rounded = hn::NearestInt(hn::Mul(at(k), inverse));
    sum = hn::Add(sum, rounded);
    hn::StoreU(hn::DemoteTo(hn::Rebind<int16_t, IntTag>(), rounded), hn::Rebind<int16_t, IntTag>(), rows.q[i] + k);
  }
  rows.scale[i] = most / 32767.0f;
  rows.start[i] = -hn::GetLane(hn::SumOfLanes(di, sum)) * ((1 << kBits) - 1) / 2;
}

/// out[i, c] (+)= scale of row i · (scale of column c) · Σ over elements e of q[i, e] · code(e, c), for kRows rows from
/// `row` on and kCols vectors of columns. words: [word_rows, width].
template <int kBits, int kRows, int kCols, bool kAdd>
HWY_INLINE void CodeProductColumns(const uint32_t* HWY_RESTRICT words, int64_t word_rows, int64_t width,
                                   const uint16_t* HWY_RESTRICT column_scales, const RoundedRows& rows, int row,
                                   float* HWY_RESTRICT out, int64_t out_stride) {
  const FloatTag d;
  const IntTag di;
  const WordTag dw;
  const int64_t lanes = Lanes();
  const auto mask = hn::Set(dw, kCodePairMask<kBits>);
  IntVec sums[kRows][kCols];
  FATHOM_UNROLL
  for (int i = 0; i < kRows; ++i) {
    FATHOM_UNROLL
    for (int j = 0; j < kCols; ++j) sums[i][j] = hn::Set(di, rows.start[row + i]);
  }
  for (int64_t r = 0; r < word_rows; ++r) {
    WordVec word[kCols];
    FATHOM_UNROLL
    for (int j = 0; j < kCols; ++j) word[j] = hn::LoadU(dw, words + r * width + j * lanes);
    FATHOM_UNROLL
    for (int p = 0; p < kPairsOfWord<kBits>; ++p) {
      WordVec codes[kCols];
      FATHOM_UNROLL
      for (int j = 0; j < kCols; ++j) {
        codes[j] = hn::And(word[j], mask);
        word[j] = hn::ShiftRight<kBits>(word[j]);
      }
      FATHOM_UNROLL
      for (int i = 0; i < kRows; ++i) {
        int32_t two;
        std::memcpy(&two, rows.q[row + i] + 2 * (r * kPairsOfWord<kBits> + p), 4);
        const auto numbers = hn::Set(di, two);
        FATHOM_UNROLL
        for (int j = 0; j < kCols; ++j) sums[i][j] = DotPair(sums[i][j], codes[j], numbers);
      }
    }
  }
  FATHOM_UNROLL
  for (int j = 0; j < kCols; ++j) {
    const auto column_scale = column_scales ? LoadBf16s(column_scales + j * lanes) : hn::Set(d, 1.0f);
    FATHOM_UNROLL
    for (int i = 0; i < kRows; ++i) {
      float* to = out + i * out_stride + j * lanes;
      const auto scale = hn::Mul(column_scale, hn::Set(d, rows.scale[row + i]));
      const auto sum = hn::ConvertTo(d, sums[i][j]);
      hn::StoreU(kAdd ? hn::MulAdd(sum, scale, hn::LoadU(d, to)) : hn::Mul(sum, scale), d, to);
    }
  }
}

/// CodeProductColumns for all queries and kCols vectors of columns from `column` on.
template <int kBits, int kCols, bool kAdd>
HWY_INLINE void CodeProductRows(const uint32_t* words, int64_t word_rows, int64_t width, int column,
                                const uint16_t* column_scales, const RoundedRows& rows, int queries, float* out,
                                int64_t out_stride) {
  const uint16_t* scales = column_scales ? column_scales + column : nullptr;
  out += column;
  int i = 0;
  for (; i + kQueries <= queries; i += kQueries) {
    CodeProductColumns<kBits, kQueries, kCols, kAdd>(words + column, word_rows, width, scales, rows, i,
                                                     out + i * out_stride, out_stride);
  }
  for (; i < queries; ++i) {
    CodeProductColumns<kBits, 1, kCols, kAdd>(words + column, word_rows, width, scales, rows, i,
                                              out + i * out_stride, out_stride);
  }
}

/// scores[i, t] = queries[i] · key t for few queries. queries: [queries, stride], stride a multiple of 32, zeros behind
/// key_dim.
template <int kBits>
HWY_NOINLINE void CodeScores(const std::byte* keys, int key_dim, const float* HWY_RESTRICT queries, int64_t stride,
                             int count, float* HWY_RESTRICT scores) {
  constexpr PageFormat kFormat = kBits == 8 ? PageFormat::kQ8 : PageFormat::kQ4;
  constexpr int kGroupRows = kScaleGroup / 2 / kPairsOfWord<kBits>;
  const auto* words = reinterpret_cast<const uint32_t*>(keys);
  const auto* scales = reinterpret_cast<const uint16_t*>(keys + key_scale_offset(kFormat, key_dim));
  const int word_rows = (key_dim / 2 + kPairsOfWord<kBits> - 1) / kPairsOfWord<kBits>;
  RoundedRows rows;
  for (int g = 0; g < scale_groups(key_dim); ++g) {
    for (int i = 0; i < count; ++i)
      RoundRow<kBits>(queries + i * stride + g * kScaleGroup, nullptr, kScaleGroup, i, rows);
    const int n = std::min(kGroupRows, word_rows - g * kGroupRows);
    const uint32_t* group = words + static_cast<int64_t>(g) * kGroupRows * kPageTokens;
    const uint16_t* group_scales = scales + g * kPageTokens;
    for (int c = 0; c < kPageTokens; c += kVectors * Lanes()) {
      if (g == 0) {
        CodeProductRows<kBits, kVectors, false>(group, n, kPageTokens, c, group_scales, rows, count, scores,
                                                kPageTokens);
      } else {
        CodeProductRows<kBits, kVectors, true>(group, n, kPageTokens, c, group_scales, rows, count, scores,
                                               kPageTokens);
      }
    }
  }
}

/// out[i] += Σ over tokens t of weights[i, t] · value t for few queries; value_dim is a multiple of the lanes.
template <int kBits>
HWY_NOINLINE void CodeValues(const std::byte* values, int value_dim, const float* HWY_RESTRICT weights, int count,
                             float* HWY_RESTRICT out) {
  constexpr PageFormat kFormat = kBits == 8 ? PageFormat::kQ8 : PageFormat::kQ4;
  constexpr int kCols = kScaleGroup / 16;
  const auto* words = reinterpret_cast<const uint32_t*>(values);
  const auto* scales = reinterpret_cast<const uint16_t*>(values + value_scale_offset(kFormat, value_dim));
  const int lanes = Lanes();
  RoundedRows rows;
  alignas(64) float token_scales[kPageTokens];
  for (int g = 0; g < scale_groups(value_dim); ++g) {
    for (int t = 0; t < kPageTokens; ++t) token_scales[t] = LoadBf16(scales[g * kPageTokens + t]);
    for (int i = 0; i < count; ++i) RoundRow<kBits>(weights + i * kPageTokens, token_scales, kPageTokens, i, rows);
    const int end = std::min((g + 1) * kScaleGroup, value_dim);
    int c = g * kScaleGroup;
    for (; c + kCols * lanes <= end; c += kCols * lanes) {
      CodeProductRows<kBits, kCols, true>(words, kPageTokens / 2 / kPairsOfWord<kBits>, value_dim, c, nullptr, rows,
                                          count, out, value_dim);
    }
    for (; c < end; c += lanes) {
      CodeProductRows<kBits, 1, true>(words, kPageTokens / 2 / kPairsOfWord<kBits>, value_dim, c, nullptr, rows,
                                      count, out, value_dim);
    }
  }
}

/// A page of codes as floats. keys: [key_dim, 64].
template <int kBits>
HWY_NOINLINE void CodeKeyTile(const std::byte* keys, int key_dim, float* HWY_RESTRICT tile) {
  constexpr PageFormat kFormat = kBits == 8 ? PageFormat::kQ8 : PageFormat::kQ4;
  const FloatTag d;
  const WordTag dw;
  const int lanes = Lanes();
  const auto* words = reinterpret_cast<const uint32_t*>(keys);
  const auto* scales = reinterpret_cast<const uint16_t*>(keys + key_scale_offset(kFormat, key_dim));
  const auto mask = hn::Set(dw, (1u << kBits) - 1);
  const auto zero = hn::Set(d, kCodeZero<kBits>);
  for (int pair = 0; pair < key_dim / 2; ++pair) {
    const int shift = pair % kPairsOfWord<kBits> * kBits;
    const uint32_t* row = words + pair / kPairsOfWord<kBits> * kPageTokens;
    const uint16_t* row_scales = scales + 2 * pair / kScaleGroup * kPageTokens;
    for (int t = 0; t < kPageTokens; t += lanes) {
      const auto word = hn::ShiftRightSame(hn::LoadU(dw, row + t), shift);
      const auto scale = LoadBf16s(row_scales + t);
      const auto even = hn::ConvertTo(d, hn::BitCast(IntTag(), hn::And(word, mask)));
      const auto odd = hn::ConvertTo(d, hn::BitCast(IntTag(), hn::And(hn::ShiftRight<16>(word), mask)));
      hn::StoreU(hn::Mul(hn::Sub(even, zero), scale), d, tile + 2 * pair * kPageTokens + t);
      hn::StoreU(hn::Mul(hn::Sub(odd, zero), scale), d, tile + (2 * pair + 1) * kPageTokens + t);
    }
  }
}

/// values: [64, value_dim].
template <int kBits>
HWY_NOINLINE void CodeValueTile(const std::byte* values, int value_dim, float* HWY_RESTRICT tile) {
  constexpr PageFormat kFormat = kBits == 8 ? PageFormat::kQ8 : PageFormat::kQ4;
  const FloatTag d;
  const WordTag dw;
  const int lanes = Lanes();
  const auto* words = reinterpret_cast<const uint32_t*>(values);
  const auto* scales = reinterpret_cast<const uint16_t*>(values + value_scale_offset(kFormat, value_dim));
  const auto mask = hn::Set(dw, (1u << kBits) - 1);
  const auto zero = hn::Set(d, kCodeZero<kBits>);
  const int whole = value_dim / lanes * lanes;
  for (int pair = 0; pair < kPageTokens / 2; ++pair) {
    const int shift = pair % kPairsOfWord<kBits> * kBits;
    const uint32_t* row = words + static_cast<int64_t>(pair / kPairsOfWord<kBits>) * value_dim;
    float* to = tile + static_cast<int64_t>(2 * pair) * value_dim;
    for (int c = 0; c < whole; c += lanes) {
      const uint16_t* token_scales = scales + c / kScaleGroup * kPageTokens + 2 * pair;
      const auto word = hn::ShiftRightSame(hn::LoadU(dw, row + c), shift);
      const auto even = hn::ConvertTo(d, hn::BitCast(IntTag(), hn::And(word, mask)));
      const auto odd = hn::ConvertTo(d, hn::BitCast(IntTag(), hn::And(hn::ShiftRight<16>(word), mask)));
      hn::StoreU(hn::Mul(hn::Sub(even, zero), hn::Set(d, LoadBf16(token_scales[0]))), d, to + c);
      hn::StoreU(hn::Mul(hn::Sub(odd, zero), hn::Set(d, LoadBf16(token_scales[1]))), d, to + value_dim + c);
    }
    for (int c = whole; c < value_dim; ++c) {
      to[c] = page_value(kFormat, value_dim, values, 2 * pair, c);
      to[value_dim + c] = page_value(kFormat, value_dim, values, 2 * pair + 1, c);
    }
  }
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
