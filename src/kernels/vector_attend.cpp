// Attention over pages with an online softmax, once per instruction set.
// A page is read either as it lies (few queries: the queries are turned back by the page's place) or through a tile
// of floats into which it is brought, rotated to its place, once for many queries. Scores and sums are the same
// code for both.
#include "kernels/vector.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

// Highway's order: the target loop first, then what it compiles once per target.
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/vector_attend.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "hwy/contrib/math/math-inl.h"
// clang-format on

#ifndef FATHOM_ATTEND_CONSTANTS
#define FATHOM_ATTEND_CONSTANTS
namespace fathom {
/// From this many queries on, bringing a page into a tile costs less than unpacking it for every group of queries.
inline constexpr int kTileQueries = 16;
}  // namespace fathom
#endif

#if FATHOM_VECTOR_TARGET
HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::CappedTag<float, 16>;
using WordTag = hn::Rebind<uint32_t, FloatTag>;
using FloatVec = hn::Vec<FloatTag>;
inline int Lanes() { return static_cast<int>(hn::Lanes(FloatTag())); }
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// Queries and vectors of a register tile: 4 × 4 sums and the operands fit 32 registers, 4 × 2 fit 16.
constexpr int kQueries = 4;
#if HWY_TARGET == HWY_AVX3_DL || HWY_TARGET == HWY_AVX3
constexpr int kVectors = 4;
#else
constexpr int kVectors = 2;
#endif

/// Three ways in which a page's elements lie; Load gives the pairs of elements at `index` (in pairs) as two
/// vectors.
struct Bf16Pairs {  // interleaved bfloat16: the even element is the low half of a word
  const uint32_t* data;
  HWY_INLINE void Load(int64_t index, int64_t /*row*/, int64_t /*width*/, FloatVec& even, FloatVec& odd) const {
    const WordTag d;
    const auto words = hn::LoadU(d, data + index);
    even = hn::BitCast(FloatTag(), hn::ShiftLeft<16>(words));
    odd = hn::BitCast(FloatTag(), hn::And(words, hn::Set(d, 0xffff0000u)));
  }
};
struct F32Pairs {  // interleaved floats
  const float* data;
  HWY_INLINE void Load(int64_t index, int64_t /*row*/, int64_t /*width*/, FloatVec& even, FloatVec& odd) const {
    hn::LoadInterleaved2(FloatTag(), data + 2 * index, even, odd);
  }
};
struct TilePairs {  // rows of floats: the even row of a pair, then the odd one
  const float* data;
  HWY_INLINE void Load(int64_t index, int64_t row, int64_t width, FloatVec& even, FloatVec& odd) const {
    even = hn::LoadU(FloatTag(), data + index + row * width);
    odd = hn::LoadU(FloatTag(), data + index + (row + 1) * width);
  }
};

/// out[i, c] (+)= Σ over pairs r of a[i, 2r]·even(r, c) + a[i, 2r+1]·odd(r, c) for kRows rows of a and columns [0,
/// width). The product at the heart of attention: scores (r: dimensions, c: tokens) and weighted values (r: tokens,
/// c: dimensions).
template <int kRows, int kCols, bool kAdd, class Pairs>
HWY_INLINE void PairProductColumns(const Pairs& page, int64_t pairs, int64_t width, int64_t column,
                                   const float* HWY_RESTRICT a, int64_t a_stride, float* HWY_RESTRICT out,
                                   int64_t out_stride) {
  const FloatTag d;
  const int64_t lanes = Lanes();
  FloatVec sums[kRows][kCols];
  FATHOM_UNROLL
  for (int i = 0; i < kRows; ++i) {
    FATHOM_UNROLL
    for (int j = 0; j < kCols; ++j)
      sums[i][j] = kAdd ? hn::LoadU(d, out + i * out_stride + column + j * lanes) : hn::Zero(d);
  }
  for (int64_t r = 0; r < pairs; ++r) {
    FloatVec even[kCols], odd[kCols];
    FATHOM_UNROLL
    for (int j = 0; j < kCols; ++j) page.Load(r * width + column + j * lanes, r, width, even[j], odd[j]);
    FATHOM_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const auto a0 = hn::Set(d, a[i * a_stride + 2 * r]), a1 = hn::Set(d, a[i * a_stride + 2 * r + 1]);
      FATHOM_UNROLL
      for (int j = 0; j < kCols; ++j) sums[i][j] = hn::MulAdd(a1, odd[j], hn::MulAdd(a0, even[j], sums[i][j]));
    }
  }
  FATHOM_UNROLL
  for (int i = 0; i < kRows; ++i) {
    FATHOM_UNROLL
    for (int j = 0; j < kCols; ++j) hn::StoreU(sums[i][j], d, out + i * out_stride + column + j * lanes);
  }
}

/// The element at (pair r, column c, parity) of a page, for widths that are no multiple of the vectors.
HWY_INLINE float Element(const Bf16Pairs& p, int64_t index, int64_t, int64_t, int parity) {
  const uint32_t word = p.data[index];
  const uint32_t bits = parity ? word & 0xffff0000u : word << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
HWY_INLINE float Element(const F32Pairs& p, int64_t index, int64_t, int64_t, int parity) {
  return p.data[2 * index + parity];
}
HWY_INLINE float Element(const TilePairs& p, int64_t index, int64_t row, int64_t width, int parity) {
  return p.data[index + (row + parity) * width];
}

template <int kRows, bool kAdd, class Pairs>
HWY_INLINE void PairProduct(const Pairs& page, int64_t pairs, int64_t width, const float* HWY_RESTRICT a,
                            int64_t a_stride, float* HWY_RESTRICT out, int64_t out_stride) {
  const int64_t lanes = Lanes();
  int64_t column = 0;
  for (; column + kVectors * lanes <= width; column += kVectors * lanes) {
    PairProductColumns<kRows, kVectors, kAdd>(page, pairs, width, column, a, a_stride, out, out_stride);
  }
  for (; column + lanes <= width; column += lanes) {
    PairProductColumns<kRows, 1, kAdd>(page, pairs, width, column, a, a_stride, out, out_stride);
  }
  for (; column < width; ++column) {
    FATHOM_UNROLL
    for (int i = 0; i < kRows; ++i) {
      float total = kAdd ? out[i * out_stride + column] : 0.0f;
      for (int64_t r = 0; r < pairs; ++r) {
        total += a[i * a_stride + 2 * r] * Element(page, r * width + column, r, width, 0) +
                 a[i * a_stride + 2 * r + 1] * Element(page, r * width + column, r, width, 1);
      }
      out[i * out_stride + column] = total;
    }
  }
}

/// PairProduct for any number of rows.
template <bool kAdd, class Pairs>
HWY_INLINE void PairProductRows(const Pairs& page, int64_t pairs, int64_t width, int rows, const float* a,
                                int64_t a_stride, float* out, int64_t out_stride) {
  int i = 0;
  for (; i + kQueries <= rows; i += kQueries) {
    PairProduct<kQueries, kAdd>(page, pairs, width, a + i * a_stride, a_stride, out + i * out_stride, out_stride);
  }
  for (; i < rows; ++i)
    PairProduct<1, kAdd>(page, pairs, width, a + i * a_stride, a_stride, out + i * out_stride, out_stride);
}

/// Turns masked scores of one query into weights exp(score − max) under the running maximum; returns their sum.
/// scores: [64]; out: [value_dim] is rescaled when the maximum grows.
HWY_INLINE float SoftmaxPage(uint64_t mask, float* HWY_RESTRICT scores, float& running_max, float& running_sum,
                             float* HWY_RESTRICT out, int value_dim) {
  const FloatTag d;
  const int lanes = Lanes();
  if (mask != ~uint64_t{0}) {
    for (int t = 0; t < kPageTokens; ++t) scores[t] = mask >> t & 1 ? scores[t] : kMinusInfinity;
  }
  auto largest = hn::Load(d, scores);
  for (int t = lanes; t < kPageTokens; t += lanes) largest = hn::Max(largest, hn::Load(d, scores + t));
  const float new_max = std::max(running_max, hn::GetLane(hn::MaxOfLanes(d, largest)));
  const auto shift = hn::Set(d, new_max);
  auto sums = hn::Zero(d);
  for (int t = 0; t < kPageTokens; t += lanes) {
    // exp of −infinity is 0 by the mask, whatever the approximation makes of it
    const auto score = hn::Load(d, scores + t);
    const auto weight =
        hn::IfThenZeroElse(hn::Eq(score, hn::Set(d, kMinusInfinity)), hn::Exp(d, hn::Sub(score, shift)));
    sums = hn::Add(sums, weight);
    hn::Store(weight, d, scores + t);
  }
  const float page_sum = hn::GetLane(hn::SumOfLanes(d, sums));
  if (new_max > running_max) {
    const float scale = std::exp(running_max - new_max);  // 0 at the first page
    running_sum *= scale;
    for (int i = 0; i < value_dim; ++i) out[i] *= scale;
    running_max = new_max;
  }
  running_sum += page_sum;
  return page_sum;
}

/// The working memory of one task, laid out in the caller's scratch.
struct Work {
  float* max;     // [queries]
  float* sum;     // [queries]
  float* scores;  // [queries, 64]
  float* turned;  // [queries, key_dim] queries turned back by a page's place
  float* keys;    // [key_dim, 64] tile
  float* values;  // [64, value_dim] tile
};

/// Rows of even and odd elements [pairs][2][width] of interleaved pairs, as floats.
template <class Pairs>
HWY_INLINE void Deinterleave(const Pairs& page, int64_t pairs, int64_t width, float* HWY_RESTRICT tile) {
  const FloatTag d;
  const int64_t lanes = Lanes();
  for (int64_t r = 0; r < pairs; ++r) {
    int64_t c = 0;
    for (; c + lanes <= width; c += lanes) {
      FloatVec even, odd;
      page.Load(r * width + c, r, width, even, odd);
      hn::StoreU(even, d, tile + 2 * r * width + c);
      hn::StoreU(odd, d, tile + (2 * r + 1) * width + c);
    }
    for (; c < width; ++c) {
      tile[2 * r * width + c] = Element(page, r * width + c, r, width, 0);
      tile[(2 * r + 1) * width + c] = Element(page, r * width + c, r, width, 1);
    }
  }
}

/// Rotates a key tile to its place: one constant rotation per pair of rows.
HWY_INLINE void RotateTile(const PageRead& page, int rotary_dim, float* HWY_RESTRICT tile) {
  const FloatTag d;
  const int lanes = Lanes();
  for (int r = 0; r < rotary_dim / 2; ++r) {
    float* even_row = tile + 2 * r * kPageTokens;
    float* odd_row = even_row + kPageTokens;
    const auto c = hn::Set(d, page.cos[r]), s = hn::Set(d, page.sin[r]);
    for (int t = 0; t < kPageTokens; t += lanes) {
      const auto even = hn::Load(d, even_row + t), odd = hn::Load(d, odd_row + t);
      hn::Store(hn::NegMulAdd(odd, s, hn::Mul(even, c)), d, even_row + t);
      hn::Store(hn::MulAdd(even, s, hn::Mul(odd, c)), d, odd_row + t);
    }
  }
}

/// Queries turned back by the page's place: R(−place)·q.
HWY_INLINE void TurnQueries(const AttendTask& task, const PageRead& page, int queries, float* HWY_RESTRICT turned) {
  std::copy_n(task.queries, static_cast<int64_t>(queries) * task.key_dim, turned);
  for (int i = 0; i < queries; ++i) {
    float* q = turned + static_cast<int64_t>(i) * task.key_dim;
    for (int r = 0; r < task.rotary_dim / 2; ++r) {
      const float even = q[2 * r], odd = q[2 * r + 1];
      q[2 * r] = even * page.cos[r] + odd * page.sin[r];
      q[2 * r + 1] = odd * page.cos[r] - even * page.sin[r];
    }
  }
}

template <class Pairs>
void AttendPages(const AttendTask& task, Work& work) {
  const int queries = task.rows * task.group;
  const bool tiled = queries >= kTileQueries;
  for (int64_t p = 0; p < task.page_count; ++p) {
    const PageRead& page = task.pages[p];
    const auto keys = reinterpret_cast<decltype(Pairs::data)>(page.keys);
    const auto values = reinterpret_cast<decltype(Pairs::data)>(page.values);
    const float* q = task.queries;
    if (tiled) {
      Deinterleave(Pairs{keys}, task.key_dim / 2, kPageTokens, work.keys);
      if (page.cos) RotateTile(page, task.rotary_dim, work.keys);
      Deinterleave(Pairs{values}, kPageTokens / 2, task.value_dim, work.values);
      PairProductRows<false>(TilePairs{work.keys}, task.key_dim / 2, kPageTokens, queries, q, task.key_dim,
                             work.scores, kPageTokens);
    } else {
      if (page.cos) {
        TurnQueries(task, page, queries, work.turned);
        q = work.turned;
      }
      PairProductRows<false>(Pairs{keys}, task.key_dim / 2, kPageTokens, queries, q, task.key_dim, work.scores,
                             kPageTokens);
    }
    for (int i = 0; i < queries; ++i) {
      const uint64_t mask = page.row_masks ? page.mask & page.row_masks[i / task.group] : page.mask;
      float* scores = work.scores + static_cast<int64_t>(i) * kPageTokens;
      float page_sum = 0;
      if (mask) {
        page_sum = SoftmaxPage(mask, scores, work.max[i], work.sum[i],
                               task.out + static_cast<int64_t>(i) * task.value_dim, task.value_dim);
      } else {
        std::fill_n(scores, kPageTokens, 0.0f);
      }
      // under the maximum so far; brought under the last one in Finish
      if (task.mass)
        task.mass[i * task.page_count + p] = page_sum > 0 ? std::log(page_sum) + work.max[i] : kMinusInfinity;
    }
    if (tiled) {
      PairProductRows<true>(TilePairs{work.values}, kPageTokens / 2, task.value_dim, queries, work.scores,
                            kPageTokens, task.out, task.value_dim);
    } else {
      PairProductRows<true>(Pairs{values}, kPageTokens / 2, task.value_dim, queries, work.scores, kPageTokens,
                            task.out, task.value_dim);
    }
  }
}

void Attend(const AttendTask& task, float* scratch) {
  const int64_t queries = static_cast<int64_t>(task.rows) * task.group;
  const int64_t padded = (queries + 15) / 16 * 16;
  Work work;
  work.max = scratch;
  work.sum = work.max + padded;
  work.scores = work.sum + padded;
  work.turned = work.scores + queries * kPageTokens;
  work.keys = work.turned + (std::min<int64_t>(queries, kTileQueries) * task.key_dim + 15) / 16 * 16;
  work.values = work.keys + static_cast<int64_t>(task.key_dim) * kPageTokens;
  std::fill_n(work.max, queries, kMinusInfinity);
  std::fill_n(work.sum, queries, 0.0f);
  std::fill_n(task.out, queries * task.value_dim, 0.0f);
  if (task.format == PageFormat::kBF16) {
    AttendPages<Bf16Pairs>(task, work);
  } else {
    AttendPages<F32Pairs>(task, work);
  }
  for (int64_t i = 0; i < queries; ++i) {
    const bool any = work.sum[i] > 0;
    task.lse[i] = any ? work.max[i] + std::log(work.sum[i]) : kMinusInfinity;
    const float inverse = any ? 1.0f / work.sum[i] : 0.0f;
    for (int d = 0; d < task.value_dim; ++d) task.out[i * task.value_dim + d] *= inverse;
    for (int64_t p = 0; task.mass && p < task.page_count; ++p) {
      float& mass = task.mass[i * task.page_count + p];
      mass = any ? std::exp(mass - task.lse[i]) : 0.0f;
    }
  }
}

void FillAttend(Kernels& table) { table.attend = Attend; }

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();
#else
namespace fathom::HWY_NAMESPACE {
void FillAttend(Kernels& /*table*/) {}  // the machine has no such target: kernels() does not offer it
}  // namespace fathom::HWY_NAMESPACE
#endif

#if HWY_ONCE
namespace fathom {

size_t attend_scratch(int key_dim, int value_dim, int queries) {
  const size_t padded = (static_cast<size_t>(queries) + 15) / 16 * 16;
  const size_t turned = (static_cast<size_t>(std::min(queries, kTileQueries)) * key_dim + 15) / 16 * 16;
  return 2 * padded + static_cast<size_t>(queries) * kPageTokens + turned +
         static_cast<size_t>(key_dim + value_dim) * kPageTokens;
}

HWY_EXPORT(FillAttend);
void fill_vector_attend(Kernels& table) { HWY_DYNAMIC_DISPATCH(FillAttend)(table); }

}  // namespace fathom
#endif
