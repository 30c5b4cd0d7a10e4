// Products of attention with quantised pages (PageFormat). Few queries are rounded to 16-bit integers and
// multiplied with the quantised values. For many queries, the page is unpacked into a tile of floats. Included
// inside Highway's target loop.
#if defined(FATHOM_ATTEND_QUANTS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_ATTEND_QUANTS_INL
#undef FATHOM_ATTEND_QUANTS_INL
#else
#define FATHOM_ATTEND_QUANTS_INL
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "hwy/highway.h"
#include "kernels/attend_floats-inl.h"
#include "kernels/kernels.h"

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
constexpr uint32_t kQuantPairMask = ((1u << kBits) - 1) * 0x10001u;
/// The quantised value that would represent 0. It is halfway between two integers.
template <int kBits>
constexpr float kQuantZero = static_cast<float>((1 << kBits) - 1) / 2;

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

/// Returns sums + the products of a lane's two quantised values with its two 16-bit numbers.
HWY_INLINE IntVec DotPair(IntVec sums, WordVec quants, IntVec numbers) {
#if HWY_TARGET == HWY_AVX3_DL
  return IntVec{_mm512_dpwssd_epi32(sums.raw, quants.raw, numbers.raw)};
#else
  const IntTag d;
  const hn::Repartition<int16_t, IntTag> d16;
  const auto c = hn::BitCast(d16, quants), n = hn::BitCast(d16, numbers);
  auto odd = hn::Zero(d);
#if HWY_ARCH_X86  // the products of neighbours are added in their lane; `odd` stays 0
  return hn::ReorderWidenMulAccumulate(d, c, n, sums, odd);
#else
  const auto even = hn::ReorderWidenMulAccumulate(d, c, n, hn::Zero(d), odd);
  return hn::Add(sums, hn::RearrangeToOddPlusEven(even, odd));
#endif
#endif
}

/// Rows of numbers rounded to 16 bits, for products of few queries with quantised values: x = q · scale.
struct RoundedRows {
  // even element in the low half of a word, odd element in the high half
  alignas(64) uint32_t pairs[kTileQueries][kPageTokens / 2];
  float scale[kTileQueries];
  int32_t start[kTileQueries];  // −Σ q · kQuantZero: the start of sums of q · value
};
// Rounded numbers stay below this. The remaining 2 % of the range of 16 bits allow for the rounding of bounds.
constexpr float kLargestRounded = 32000.0f;
constexpr float kTiny = 1e-30f;  // smaller numbers count as 0, so that inverses stay finite
// The lowest bits of its sum with x, |x| < 2^22, are x rounded to an integer.
constexpr float kRoundingMagic = 0x1.8p23f;

HWY_INLINE float ScaleToRounded(float largest) { return largest > kTiny ? kLargestRounded / largest : 0.0f; }

template <int kBits>
HWY_INLINE int32_t StartOfSum(IntVec sums) {
  return -hn::GetLane(hn::SumOfLanes(IntTag(), sums)) * ((1 << kBits) - 1) / 2;
}

/// Prepares queries for QuantScores: even elements followed by odd ones, scaled to kLargestRounded. The rotation by
/// a position preserves the length of a pair, so one scale serves all pages. Integers cannot represent a query that
/// is not finite; it is replaced by 0, and SetNonFiniteToNan sets its results. rows: [queries, 2, stride / 2].
HWY_NOINLINE inline void ScaleQueries(const float* HWY_RESTRICT queries, int key_dim, int count, int64_t stride,
                                      float* HWY_RESTRICT rows, float* HWY_RESTRICT scales) {
  for (int i = 0; i < count; ++i) {
    const float* HWY_RESTRICT q = queries + static_cast<int64_t>(i) * key_dim;
    float* HWY_RESTRICT even = rows + i * stride;
    float* HWY_RESTRICT odd = even + stride / 2;
    if (!AllFinite(q, key_dim)) {
      std::fill_n(even, stride, 0.0f);
      scales[i] = 0;
      continue;
    }
    float largest = 0;
    for (int r = 0; r < key_dim / 2; ++r)
      largest = std::max(largest, q[2 * r] * q[2 * r] + q[2 * r + 1] * q[2 * r + 1]);
    largest = std::sqrt(largest);
    const float to_rounded = ScaleToRounded(largest);
    scales[i] = largest / kLargestRounded;
    for (int r = 0; r < stride / 2; ++r) {
      even[r] = r < key_dim / 2 ? q[2 * r] * to_rounded : 0.0f;
      odd[r] = r < key_dim / 2 ? q[2 * r + 1] * to_rounded : 0.0f;
    }
  }
}

/// Returns the first n numbers at p, padded with `rest`.
HWY_INLINE FloatVec LoadUpTo(const float* HWY_RESTRICT p, int n, float rest) {
  const FloatTag d;
  if (n >= Lanes()) return hn::LoadU(d, p);
  alignas(64) float some[16];
  std::fill_n(some, 16, rest);
  std::copy_n(p, n, some);
  return hn::Load(d, some);
}

/// Inverse-rotates 16 pairs of scaled queries, from `first` on, by the page's position and rounds them. rotating:
/// the number of rotated pairs.
template <int kBits>
HWY_INLINE void RoundQueries(const float* HWY_RESTRICT scaled, int64_t stride, int first, const float* cos,
                             const float* sin, int rotating, int count, RoundedRows& rows) {
  const FloatTag d;
  const WordTag dw;
  const int lanes = Lanes();
  const auto magic = hn::Set(d, kRoundingMagic);
  const auto ones = hn::Set(dw, 0x10001u);
  for (int i = 0; i < count; ++i) {
    auto sum = hn::Zero(IntTag());
    for (int r = 0; r < kScaleGroup / 2; r += lanes) {
      auto even = hn::LoadU(d, scaled + i * stride + first + r);
      auto odd = hn::LoadU(d, scaled + i * stride + stride / 2 + first + r);
      if (first + r < rotating) {
        const auto c = LoadUpTo(cos + first + r, rotating - first - r, 1.0f);
        const auto s = LoadUpTo(sin + first + r, rotating - first - r, 0.0f);
        const auto rotated = hn::MulAdd(odd, s, hn::Mul(even, c));
        odd = hn::NegMulAdd(even, s, hn::Mul(odd, c));
        even = rotated;
      }
      const auto low = hn::And(hn::BitCast(dw, hn::Add(even, magic)), hn::Set(dw, 0xffffu));
      const auto high = hn::ShiftLeft<16>(hn::BitCast(dw, hn::Add(odd, magic)));
      const auto pairs = hn::Or(low, high);
      hn::StoreU(pairs, dw, rows.pairs[i] + r);
      sum = DotPair(sum, ones, hn::BitCast(IntTag(), pairs));
    }
    rows.start[i] = StartOfSum<kBits>(sum);
  }
}

/// Rounds weights[i, t] · scales[t] · to_rounded[i] for the 64 tokens of a page. to_rounded: [count]; it keeps all
/// results below kLargestRounded.
template <int kBits>
HWY_INLINE void RoundWeights(const float* HWY_RESTRICT weights, const float* HWY_RESTRICT scales,
                             const float* HWY_RESTRICT to_rounded, int count, RoundedRows& rows) {
  const FloatTag d;
  const IntTag di;
  const hn::Rebind<int16_t, IntTag> d16;
  const int lanes = Lanes();
  const auto magic = hn::Set(d, kRoundingMagic);
  for (int i = 0; i < count; ++i) {
    const auto factor = hn::Set(d, to_rounded[i]);
    auto* to = reinterpret_cast<int16_t*>(rows.pairs[i]);
    auto sum = hn::Zero(di);
    for (int t = 0; t < kPageTokens; t += lanes) {
      const auto weight = hn::Mul(hn::Load(d, weights + i * kPageTokens + t), hn::Load(d, scales + t));
      const auto shifted = hn::BitCast(di, hn::MulAdd(weight, factor, magic));
      const auto rounded = hn::Sub(shifted, hn::BitCast(di, magic));
      hn::StoreU(hn::DemoteTo(d16, rounded), d16, to + t);
      sum = hn::Add(sum, rounded);
    }
    rows.start[i] = StartOfSum<kBits>(sum);
  }
}

/// out[i, c] (+)= scale of row i · (scale of column c) · Σ over elements e of q[i, e] · quant(e, c), for kRows rows
/// from `row` on and kCols vectors of columns. words: [word_rows, width]; next_words: the data that is read next,
/// in the same layout; it is prefetched.
template <int kBits, int kRows, int kCols, bool kAdd>
HWY_INLINE void QuantProductColumns(const uint32_t* HWY_RESTRICT words, const uint32_t* next_words,
                                    int64_t word_rows, int64_t width, const uint16_t* HWY_RESTRICT column_scales,
                                    const RoundedRows& rows, int row, float* HWY_RESTRICT out, int64_t out_stride) {
  const FloatTag d;
  const IntTag di;
  const WordTag dw;
  const int64_t lanes = Lanes();
  const auto mask = hn::Set(dw, kQuantPairMask<kBits>);
  IntVec sums[kRows][kCols];
  FATHOM_UNROLL
  for (int i = 0; i < kRows; ++i) {
    FATHOM_UNROLL
    for (int j = 0; j < kCols; ++j) sums[i][j] = hn::Set(di, rows.start[row + i]);
  }
  for (int64_t r = 0; r < word_rows; ++r) {
    WordVec word[kCols];
    FATHOM_UNROLL
    for (int j = 0; j < kCols; ++j) {
      word[j] = hn::LoadU(dw, words + r * width + j * lanes);
      PrefetchToL2(next_words + r * width + j * lanes);
    }
    FATHOM_UNROLL
    for (int p = 0; p < kPairsOfWord<kBits>; ++p) {
      WordVec quants[kCols];
      FATHOM_UNROLL
      for (int j = 0; j < kCols; ++j) {
        quants[j] = hn::And(word[j], mask);
        word[j] = hn::ShiftRight<kBits>(word[j]);
      }
      FATHOM_UNROLL
      for (int i = 0; i < kRows; ++i) {
        const auto numbers = hn::BitCast(di, hn::Set(dw, rows.pairs[row + i][r * kPairsOfWord<kBits> + p]));
        FATHOM_UNROLL
        for (int j = 0; j < kCols; ++j) sums[i][j] = DotPair(sums[i][j], quants[j], numbers);
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

/// QuantProductColumns for all queries, and kCols vectors of columns from `column` on.
template <int kBits, int kCols, bool kAdd>
HWY_INLINE void QuantProductRows(const uint32_t* words, const uint32_t* next_words, int64_t word_rows,
                                 int64_t width, int column, const uint16_t* column_scales, const RoundedRows& rows,
                                 int queries, float* out, int64_t out_stride) {
  const uint16_t* scales = column_scales ? column_scales + column : nullptr;
  out += column;
  int i = 0;
  for (; i + kQueries <= queries; i += kQueries) {
    QuantProductColumns<kBits, kQueries, kCols, kAdd>(words + column, next_words + column, word_rows, width, scales,
                                                      rows, i, out + i * out_stride, out_stride);
  }
  for (; i < queries; ++i) {
    QuantProductColumns<kBits, 1, kCols, kAdd>(words + column, next_words + column, word_rows, width, scales, rows,
                                               i, out + i * out_stride, out_stride);
  }
}

/// scores[i, t] = queries[i] · key t for few queries, as prepared by ScaleQueries. next_keys: the keys of the next
/// page.
template <int kBits>
HWY_NOINLINE void QuantScores(const AttendTask& task, const PageRead& page, const std::byte* next_keys,
                              const float* HWY_RESTRICT scaled, int64_t stride, const float* HWY_RESTRICT scales,
                              int count, float* HWY_RESTRICT scores) {
  constexpr PageFormat kFormat = kBits == 8 ? PageFormat::kQ8 : PageFormat::kQ4;
  constexpr int kGroupRows = kScaleGroup / 2 / kPairsOfWord<kBits>;
  const size_t scale_offset = key_scale_offset(kFormat, task.key_dim);
  const auto* words = reinterpret_cast<const uint32_t*>(page.keys);
  const auto* next_words = reinterpret_cast<const uint32_t*>(next_keys);
  const int word_rows = (task.key_dim / 2 + kPairsOfWord<kBits> - 1) / kPairsOfWord<kBits>;
  const int rotating = page.cos ? task.rotary_dim / 2 : 0;
  RoundedRows rows;
  std::copy_n(scales, count, rows.scale);
  for (int g = 0; g < scale_groups(task.key_dim); ++g) {
    RoundQueries<kBits>(scaled, stride, g * kScaleGroup / 2, page.cos, page.sin, rotating, count, rows);
    const int n = std::min(kGroupRows, word_rows - g * kGroupRows);
    const int64_t at = static_cast<int64_t>(g) * kGroupRows * kPageTokens;
    const size_t scales_at = scale_offset + g * kPageTokens * sizeof(uint16_t);
    const auto* group_scales = reinterpret_cast<const uint16_t*>(page.keys + scales_at);
    for (size_t byte = 0; byte < kPageTokens * sizeof(uint16_t); byte += 64)
      PrefetchToL2(next_keys + scales_at + byte);
    for (int c = 0; c < kPageTokens; c += kVectors * Lanes()) {
      if (g == 0) {
        QuantProductRows<kBits, kVectors, false>(words + at, next_words + at, n, kPageTokens, c, group_scales, rows,
                                                 count, scores, kPageTokens);
      } else {
        QuantProductRows<kBits, kVectors, true>(words + at, next_words + at, n, kPageTokens, c, group_scales, rows,
                                                count, scores, kPageTokens);
      }
    }
  }
}

/// Computes, for each query, the factor that scales its largest weight · scale to kLargestRounded. scales: [groups,
/// 64].
HWY_INLINE void BoundWeights(const float* HWY_RESTRICT weights, const uint16_t* scales, int groups, int count,
                             float* HWY_RESTRICT to_rounded, RoundedRows& rows) {
  const FloatTag d;
  const int lanes = Lanes();
  alignas(64) float largest_scale[kPageTokens];
  for (int t = 0; t < kPageTokens; t += lanes) {
    auto largest = LoadBf16s(scales + t);
    for (int g = 1; g < groups; ++g) largest = hn::Max(largest, LoadBf16s(scales + g * kPageTokens + t));
    hn::Store(largest, d, largest_scale + t);
  }
  for (int i = 0; i < count; ++i) {
    auto max_product = hn::Zero(d);
    for (int t = 0; t < kPageTokens; t += lanes)
      max_product =
          hn::Max(max_product, hn::Mul(hn::Load(d, weights + i * kPageTokens + t), hn::Load(d, largest_scale + t)));
    const float largest = hn::GetLane(hn::MaxOfLanes(d, max_product));
    to_rounded[i] = ScaleToRounded(largest);
    rows.scale[i] = largest / kLargestRounded;
  }
}

/// out[i] += Σ over tokens t of weights[i, t] · value t for few queries; value_dim is a multiple of the lanes.
/// next_values: the values of the next page.
template <int kBits>
HWY_NOINLINE void QuantValues(const std::byte* values, const std::byte* next_values, int value_dim,
                              const float* HWY_RESTRICT weights, int count, float* HWY_RESTRICT out) {
  constexpr PageFormat kFormat = kBits == 8 ? PageFormat::kQ8 : PageFormat::kQ4;
  constexpr int kCols = kScaleGroup / 16;
  constexpr int kWordRows = kPageTokens / 2 / kPairsOfWord<kBits>;
  const FloatTag d;
  const int lanes = Lanes();
  const int groups = scale_groups(value_dim);
  const auto* words = reinterpret_cast<const uint32_t*>(values);
  const auto* next_words = reinterpret_cast<const uint32_t*>(next_values);
  const size_t scale_offset = value_scale_offset(kFormat, value_dim);
  const auto* scales = reinterpret_cast<const uint16_t*>(values + scale_offset);
  RoundedRows rows;
  float to_rounded[kTileQueries];
  alignas(64) float token_scales[kPageTokens];
  BoundWeights(weights, scales, groups, count, to_rounded, rows);
  for (int g = 0; g < groups; ++g) {
    const size_t at = g * kPageTokens;
    for (int t = 0; t < kPageTokens; t += lanes) hn::Store(LoadBf16s(scales + at + t), d, token_scales + t);
    for (size_t byte = 0; byte < kPageTokens * sizeof(uint16_t); byte += 64)
      PrefetchToL2(next_values + scale_offset + at * sizeof(uint16_t) + byte);
    RoundWeights<kBits>(weights, token_scales, to_rounded, count, rows);
    const int end = std::min((g + 1) * kScaleGroup, value_dim);
    int c = g * kScaleGroup;
    for (; c + kCols * lanes <= end; c += kCols * lanes) {
      QuantProductRows<kBits, kCols, true>(words, next_words, kWordRows, value_dim, c, nullptr, rows, count, out,
                                           value_dim);
    }
    for (; c < end; c += lanes)
      QuantProductRows<kBits, 1, true>(words, next_words, kWordRows, value_dim, c, nullptr, rows, count, out,
                                       value_dim);
  }
}

/// Unpacks a page's quantised keys to floats. tile: [key_dim, 64].
template <int kBits>
HWY_NOINLINE void QuantKeyTile(const std::byte* keys, int key_dim, float* HWY_RESTRICT tile) {
  constexpr PageFormat kFormat = kBits == 8 ? PageFormat::kQ8 : PageFormat::kQ4;
  const FloatTag d;
  const WordTag dw;
  const int lanes = Lanes();
  const auto* words = reinterpret_cast<const uint32_t*>(keys);
  const auto* scales = reinterpret_cast<const uint16_t*>(keys + key_scale_offset(kFormat, key_dim));
  const auto mask = hn::Set(dw, (1u << kBits) - 1);
  const auto zero = hn::Set(d, kQuantZero<kBits>);
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

/// Unpacks a page's quantised values to floats. tile: [64, value_dim].
template <int kBits>
HWY_NOINLINE void QuantValueTile(const std::byte* values, int value_dim, float* HWY_RESTRICT tile) {
  constexpr PageFormat kFormat = kBits == 8 ? PageFormat::kQ8 : PageFormat::kQ4;
  const FloatTag d;
  const WordTag dw;
  const int lanes = Lanes();
  const auto* words = reinterpret_cast<const uint32_t*>(values);
  const auto* scales = reinterpret_cast<const uint16_t*>(values + value_scale_offset(kFormat, value_dim));
  const auto mask = hn::Set(dw, (1u << kBits) - 1);
  const auto zero = hn::Set(d, kQuantZero<kBits>);
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
