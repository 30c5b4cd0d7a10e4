// Attention over pages with an online softmax, or an online sum of other weights, once per instruction set. For few
// queries a page is read as stored, and the queries are inverse-rotated by the page's position. For many queries
// the page is unpacked once into a tile of floats and rotated by its position.
#include "kernels/vector.h"

#include <algorithm>
#include <bit>
#include <cmath>

// Highway requires this order: the target loop first, then what it compiles once per target.
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/vector_attend.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/attend_parts-inl.h"
#include "kernels/attend_quants-inl.h"
#include "kernels/exp-inl.h"
#include "kernels/value_rows-inl.h"
// clang-format on

#if FATHOM_VECTOR_TARGET
HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

constexpr int kSumLanes = 16;  // partial sums of a query's weights, which are added at the end

/// Replaces scores of one query by weights exp(score − max) under the running maximum, 0 outside the mask. scores:
/// [vectors · Lanes()]. running_sums: [kSumLanes] and out: [value_dim] are rescaled if the maximum grows, and do
/// not change if all scores are −infinity. Returns the sums of the weights.
HWY_INLINE FloatVec UpdateSoftmax(uint64_t mask, int vectors, float* HWY_RESTRICT scores, float& running_max,
                                  float* HWY_RESTRICT running_sums, float* HWY_RESTRICT out, int value_dim) {
  const FloatTag d;
  const int lanes = Lanes();
  if (mask != ~uint64_t{0}) MaskScores(mask, vectors, scores);
  auto largest = hn::Load(d, scores);
  for (int v = 1; v < vectors; ++v) largest = hn::Max(largest, hn::Load(d, scores + v * lanes));
  if (!hn::AllTrue(d, hn::Le(largest, hn::Set(d, running_max)))) {
    const float new_max = hn::GetLane(hn::MaxOfLanes(d, largest));
    const float scale = std::exp(running_max - new_max);  // 0 at the first page
    hn::Store(hn::Mul(hn::Load(d, running_sums), hn::Set(d, scale)), d, running_sums);
    for (int i = 0; i < value_dim; ++i) out[i] *= scale;
    running_max = new_max;
  } else if (running_max == kMinusInfinity) {
    std::fill_n(scores, vectors * lanes, 0.0f);
    return hn::Zero(d);
  }
  const auto shift = hn::Set(d, running_max);
  auto sums = hn::Zero(d);
  for (int v = 0; v < vectors; ++v) {
    const auto weight = Exp(hn::Sub(hn::Load(d, scores + v * lanes), shift));
    sums = hn::Add(sums, weight);
    hn::Store(weight, d, scores + v * lanes);
  }
  hn::Store(hn::Add(hn::Load(d, running_sums), sums), d, running_sums);
  return sums;
}

/// The working memory of one task, laid out in the caller's scratch.
struct AttendScratch {
  float* max;     // [queries]
  float* sums;    // [queries, kSumLanes]
  float* scores;  // [queries, 64]
  // For few queries: [queries, key_dim], inverse-rotated by a page's position, or [queries, rotated_stride],
  // scaled.
  float* rotated;
  int64_t rotated_stride;
  float scales[kTileQueries];  // of scaled queries
  float* keys;                 // [key_dim, 64] tile; with the next one also the buffer of GatheredPages
  float* values;               // [64, value_dim] tile
};

/// Rotates a key tile by the page's position: one constant rotation per pair of rows.
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

/// Inverse-rotates queries by the page's position p: R(−p)·q.
HWY_INLINE void InverseRotateQueries(const AttendTask& task, const PageRead& page, int queries,
                                     float* HWY_RESTRICT rotated) {
  const FloatTag d;
  const int lanes = Lanes();
  const int pairs = task.rotary_dim / 2;
  for (int i = 0; i < queries; ++i) {
    const float* HWY_RESTRICT q = task.queries + static_cast<int64_t>(i) * task.key_dim;
    float* HWY_RESTRICT to = rotated + static_cast<int64_t>(i) * task.key_dim;
    int r = 0;
    for (; r + lanes <= pairs; r += lanes) {
      FloatVec even, odd;
      hn::LoadInterleaved2(d, q + 2 * r, even, odd);
      const auto c = hn::LoadU(d, page.cos + r), s = hn::LoadU(d, page.sin + r);
      hn::StoreInterleaved2(hn::MulAdd(odd, s, hn::Mul(even, c)), hn::NegMulAdd(even, s, hn::Mul(odd, c)), d,
                            to + 2 * r);
    }
    for (; r < pairs; ++r) {
      const float even = q[2 * r], odd = q[2 * r + 1];
      to[2 * r] = even * page.cos[r] + odd * page.sin[r];
      to[2 * r + 1] = odd * page.cos[r] - even * page.sin[r];
    }
    std::copy(q + 2 * r, q + task.key_dim, to + 2 * r);
  }
}

/// Base of page types whose values are unpacked into a tile of their own.
struct ValueTile {
  static void AddTile(const AttendTask& task, const PageRead& /*page*/, const PageRead& /*next_page*/, int queries,
                      AttendScratch& work) {
    PairProductRows<true>(TilePairs{work.values}, kPageTokens / 2, task.value_dim, queries, work.scores,
                          kPageTokens, task.out, task.value_dim);
  }
};

/// FloatPages and QuantPages unpack pages into tiles, or read them as stored for few queries. While float keys are
/// read, the values of the page are prefetched; while values are read, the keys of the next page.
template <class PageWords>
struct FloatPages : ValueTile {
  static constexpr bool kReadsVisibleOnly = true;  // few queries read only the visible parts of a page
  using Words = PageWords;
  using Word = typename Words::Word;
  static PagePairs<Words, TileLayout> Keys(const AttendTask& task, const PageRead& page,
                                           const PageRead& next_page) {
    return {reinterpret_cast<const Word*>(page.keys), task.out ? page.values : next_page.keys, {task.key_dim / 2}};
  }
  static PagePairs<Words, RowLayout> Values(const PageRead& page, const PageRead& next_page) {
    return {reinterpret_cast<const Word*>(page.values), next_page.keys, {}};
  }
  static bool NeedsTile(const AttendTask& /*task*/) { return false; }
  static void Unpack(const AttendTask& task, const PageRead& page, const PageRead& next_page, AttendScratch& work) {
    Deinterleave(Keys(task, page, next_page), task.key_dim / 2, kPageTokens, work.keys);
    if (!task.out) return;
    Deinterleave(Values(page, next_page), kPageTokens / 2, task.value_dim, work.values);
  }
  static void UnpackKeys(const AttendTask& task, const std::byte* keys, const std::byte* next_keys,
                         AttendScratch& work) {
    const PagePairs<Words, TileLayout> pairs{reinterpret_cast<const Word*>(keys), next_keys, {task.key_dim / 2}};
    Deinterleave(pairs, task.key_dim / 2, kPageTokens, work.keys);
  }
  static void Begin(const AttendTask& /*task*/, int /*queries*/, AttendScratch& /*work*/) {}
  static const float* InverseRotated(const AttendTask& task, const PageRead& page, int queries,
                                     AttendScratch& work) {
    if (!page.cos) return task.queries;
    InverseRotateQueries(task, page, queries, work.rotated);
    return work.rotated;
  }
  static void Scores(const AttendTask& task, const PageRead& page, const PageRead& next_page, int queries,
                     AttendScratch& work) {
    PairProductRows<false>(Keys(task, page, next_page), task.key_dim / 2, kPageTokens, queries,
                           InverseRotated(task, page, queries, work), task.key_dim, work.scores, kPageTokens);
  }
  static void AddValues(const AttendTask& task, const PageRead& page, const PageRead& next_page, int queries,
                        AttendScratch& work) {
    PairProductRows<true>(Values(page, next_page), kPageTokens / 2, task.value_dim, queries, work.scores,
                          kPageTokens, task.out, task.value_dim);
  }
};
template <int kBits>
struct QuantPages : ValueTile {
  static constexpr bool kReadsVisibleOnly = false;
  static bool NeedsTile(const AttendTask& task) { return task.value_dim % Lanes() != 0; }
  static void Unpack(const AttendTask& task, const PageRead& page, const PageRead& /*next_page*/,
                     AttendScratch& work) {
    QuantKeyTile<kBits>(page.keys, task.key_dim, work.keys);
    if (task.out) QuantValueTile<kBits>(page.values, task.value_dim, work.values);
  }
  static void UnpackKeys(const AttendTask& task, const std::byte* keys, const std::byte* /*next_keys*/,
                         AttendScratch& work) {
    QuantKeyTile<kBits>(keys, task.key_dim, work.keys);
  }
  static void Begin(const AttendTask& task, int queries, AttendScratch& work) {
    ScaleQueries(task.queries, task.key_dim, queries, work.rotated_stride, work.rotated, work.scales);
  }
  static void Scores(const AttendTask& task, const PageRead& page, const PageRead& next_page, int queries,
                     AttendScratch& work) {
    QuantScores<kBits>(task, page, next_page.keys, work.rotated, work.rotated_stride, work.scales, queries,
                       work.scores);
  }
  static void AddValues(const AttendTask& task, const PageRead& page, const PageRead& next_page, int queries,
                        AttendScratch& work) {
    QuantValues<kBits>(page.values, next_page.values, task.value_dim, work.scores, queries, task.out);
  }
};

/// Pages whose values are dimensions of their keys. They are always unpacked into a tile of keys. Its rows are
/// transposed and multiplied in blocks that fit the L1 cache.
template <class Pages>
struct PagesWithValuesInKeys : Pages {
  static constexpr bool kReadsVisibleOnly = false;
  static bool NeedsTile(const AttendTask& /*task*/) { return true; }
  static void Unpack(const AttendTask& task, const PageRead& page, const PageRead& next_page, AttendScratch& work) {
    Pages::UnpackKeys(task, page.keys, page.keys == page.values ? next_page.keys : page.values, work);
  }
  static void AddTile(const AttendTask& task, const PageRead& page, const PageRead& next_page, int queries,
                      AttendScratch& work) {
    constexpr int kBlock = 64;  // 16 KiB of floats: half of the smallest L1
    if (page.keys != page.values) Pages::UnpackKeys(task, page.values, next_page.keys, work);
    const float* rows = work.keys + static_cast<int64_t>(task.value_offset) * kPageTokens;
    for (int c = 0; c < task.value_dim; c += kBlock) {
      const int width = std::min(kBlock, task.value_dim - c);
      ValueRows(rows + static_cast<int64_t>(c) * kPageTokens, width, work.values);
      PairProductRows<true>(TilePairs{work.values}, kPageTokens / 2, width, queries, work.scores, kPageTokens,
                            task.out + c, task.value_dim);
    }
  }
};

/// Replaces the scores of a query by weights.
HWY_INLINE void ComputeWeights(const AttendTask& task, int query, uint64_t mask, int vectors, int64_t page,
                               AttendScratch& work) {
  float* scores = work.scores + static_cast<int64_t>(query) * kPageTokens;
  auto sums = hn::Zero(FloatTag());
  if (mask) {
    if (task.weights.apply) task.weights(query, vectors * Lanes(), scores);
    const int value_dim = task.out ? task.value_dim : 0;
    sums =
        UpdateSoftmax(mask, vectors, scores, work.max[query], work.sums + static_cast<int64_t>(query) * kSumLanes,
                      task.out + static_cast<int64_t>(query) * value_dim, value_dim);
  } else {
    std::fill_n(scores, vectors * Lanes(), 0.0f);
  }
  if (task.mass) {  // relative to the maximum so far; Attend() makes it relative to the final one
    const float sum = hn::GetLane(hn::SumOfLanes(FloatTag(), sums));
    task.mass[query * task.page_count + page] = sum > 0 ? std::log(sum) + work.max[query] : kMinusInfinity;
  }
}

/// Computes the attention of few queries, reading only the visible parts of pages.
template <class Words>
HWY_INLINE void AttendGathered(const AttendTask& task, int queries, AttendScratch& work) {
  if (task.mass) std::fill_n(task.mass, queries * task.page_count, kMinusInfinity);
  GatheredPages<Words> parts(task, queries, work.rotated, work.keys);
  while (parts.Take()) {
    const GatheredTokens& gathered = parts.gathered();
    parts.Score(work.scores);
    for (int i = 0; i < queries; ++i)
      ComputeWeights(task, i, RowMask(task, gathered, i / task.group), gathered.count, gathered.page[0], work);
    parts.AddValues(work.scores);
  }
}

HWY_INLINE void PrefetchPage(const AttendTask& task, const PageRead& page) {
  const size_t key_bytes = page_key_bytes(task.format, task.key_dim);
  const size_t value_bytes = task.out ? page_value_bytes(task.format, task.value_dim) : 0;
  for (size_t b = 0; b < key_bytes; b += 64) PrefetchToL2(page.keys + b);
  for (size_t b = 0; b < value_bytes; b += 64) PrefetchToL2(page.values + b);
}

template <class Pages>
void AttendPages(const AttendTask& task, AttendScratch& work) {
  const int queries = task.rows * task.group;
  const bool tiled = queries >= kTileQueries || Pages::NeedsTile(task);
  if constexpr (Pages::kReadsVisibleOnly) {
    const bool whole = std::all_of(task.pages, task.pages + task.page_count,
                                   [](const PageRead& page) { return page.mask == ~uint64_t{0}; });
    if (!tiled && !whole) return AttendGathered<typename Pages::Words>(task, queries, work);
  }
  if (!tiled) {
    if (task.page_count > 0) PrefetchPage(task, task.pages[0]);
    Pages::Begin(task, queries, work);
  }
  for (int64_t p = 0; p < task.page_count; ++p) {
    const PageRead& page = task.pages[p];
    const PageRead& next_page = task.pages[std::min(p + 1, task.page_count - 1)];
    if (tiled) {
      Pages::Unpack(task, page, next_page, work);
      if (page.cos) RotateTile(page, task.rotary_dim, work.keys);
      PairProductRows<false>(TilePairs{work.keys}, task.key_dim / 2, kPageTokens, queries, task.queries,
                             task.key_dim, work.scores, kPageTokens);
    } else {
      Pages::Scores(task, page, next_page, queries, work);
    }
    for (int i = 0; i < queries; ++i)
      ComputeWeights(task, i, page.row_masks ? page.mask & page.row_masks[i / task.group] : page.mask,
                     kPageTokens / Lanes(), p, work);
    if (!task.out) continue;
    if (tiled) {
      Pages::AddTile(task, page, next_page, queries, work);
    } else {
      Pages::AddValues(task, page, next_page, queries, work);
    }
  }
}

template <class Pages>
void AttendFormat(const AttendTask& task, AttendScratch& work) {
  // without `out`, values are not used
  if (task.value_offset >= 0 && task.out) return AttendPages<PagesWithValuesInKeys<Pages>>(task, work);
  AttendPages<Pages>(task, work);
}

void Attend(const AttendTask& task, float* scratch) {
  const int64_t queries = static_cast<int64_t>(task.rows) * task.group;
  const int64_t padded = (queries + 15) / 16 * 16;
  AttendScratch work;
  work.max = scratch;
  work.sums = work.max + padded;
  work.scores = work.sums + queries * kSumLanes;
  work.rotated = work.scores + queries * kPageTokens;
  work.rotated_stride = static_cast<int64_t>(scale_groups(task.key_dim)) * kScaleGroup;
  work.keys = work.rotated + std::min<int64_t>(queries, kTileQueries) * work.rotated_stride;
  work.values = work.keys + static_cast<int64_t>(task.key_dim) * kPageTokens;
  std::fill_n(work.max, queries, kMinusInfinity);
  std::fill_n(work.sums, queries * kSumLanes, 0.0f);
  if (task.out) std::fill_n(task.out, queries * task.value_dim, 0.0f);
  switch (task.format) {
    case PageFormat::kBF16:
      AttendFormat<FloatPages<Bf16Words>>(task, work);
      break;
    case PageFormat::kF32:
      AttendFormat<FloatPages<F32Words>>(task, work);
      break;
    case PageFormat::kQ8:
      AttendFormat<QuantPages<8>>(task, work);
      break;
    case PageFormat::kQ4:
      AttendFormat<QuantPages<4>>(task, work);
      break;
  }
  for (int64_t i = 0; i < queries; ++i) {
    const float* sums = work.sums + i * kSumLanes;
    const float sum = hn::GetLane(hn::SumOfLanes(FloatTag(), hn::Load(FloatTag(), sums)));
    const bool any = !(sum <= 0);  // true for NaN
    task.lse[i] = any ? work.max[i] + std::log(sum) : kMinusInfinity;
    const float inverse = any ? 1.0f / sum : 0.0f;
    for (int d = 0; task.out && d < task.value_dim; ++d) task.out[i * task.value_dim + d] *= inverse;
    for (int64_t p = 0; task.mass && p < task.page_count; ++p) {
      float& mass = task.mass[i * task.page_count + p];
      mass = any ? std::exp(mass - task.lse[i]) : 0.0f;
    }
  }
  SetNonFiniteToNan(task);
}

void FillAttend(Kernels& table) { table.attend = Attend; }

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();
#else
namespace fathom::HWY_NAMESPACE {
void FillAttend(Kernels& /*table*/) {}  // no vector target: kernels() does not list this table
}  // namespace fathom::HWY_NAMESPACE
#endif

#if HWY_ONCE
namespace fathom {

size_t attend_scratch(int key_dim, int value_dim, int queries) {
  const size_t padded = (static_cast<size_t>(queries) + 15) / 16 * 16;
  const size_t rotated = static_cast<size_t>(std::min(queries, kTileQueries)) * scale_groups(key_dim) * kScaleGroup;
  const size_t vectors = padded + static_cast<size_t>(queries) * (16 + kPageTokens) + rotated +
                         static_cast<size_t>(key_dim + value_dim) * kPageTokens;
  return std::max(vectors, amx_attend_scratch(key_dim, value_dim, queries));
}

HWY_EXPORT(FillAttend);
void fill_vector_attend(Kernels& table) { HWY_DYNAMIC_DISPATCH(FillAttend)(table); }

}  // namespace fathom
#endif
