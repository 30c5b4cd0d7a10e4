// Dot products of queries with the keys of a page, for selectors, once per instruction set.
#include "kernels/vector.h"

#include <algorithm>

// Highway requires this order: the target loop first, then what it compiles once per target.
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/vector_scores.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/attend_floats-inl.h"
#include "kernels/attend_quants-inl.h"
// clang-format on

#if FATHOM_VECTOR_TARGET
HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

template <class Pairs>
HWY_INLINE void ScorePairs(const Pairs& pairs, const ScoreTask& task) {
  PairProductRows<false>(pairs, task.key_dim / 2, kPageTokens, task.queries_count, task.queries, task.key_dim,
                         task.scores, kPageTokens);
}

/// For few queries the floats are read as stored; for many they are unpacked into a tile.
template <class Words>
void ScoreFloats(const ScoreTask& task, float* HWY_RESTRICT tile) {
  const PagePairs<Words, TileLayout> pairs{
      reinterpret_cast<const typename Words::Word*>(task.keys), task.keys, {task.key_dim / 2}};
  if (task.queries_count < kTileQueries) return ScorePairs(pairs, task);
  Deinterleave(pairs, task.key_dim / 2, kPageTokens, tile);
  ScorePairs(TilePairs{tile}, task);
}

template <int kBits>
void ScoreQuants(const ScoreTask& task, float* HWY_RESTRICT tile) {
  QuantKeyTile<kBits>(task.keys, task.key_dim, tile);
  ScorePairs(TilePairs{tile}, task);
}

void ScorePage(const ScoreTask& task, float* scratch) {
  switch (task.format) {
    case PageFormat::kBF16:
      return ScoreFloats<Bf16Words>(task, scratch);
    case PageFormat::kF32:
      return ScoreFloats<F32Words>(task, scratch);
    case PageFormat::kQ8:
      return ScoreQuants<8>(task, scratch);
    case PageFormat::kQ4:
      return ScoreQuants<4>(task, scratch);
  }
}

using FourTag = hn::FixedTag<float, 4>;
using FourVec = hn::Vec<FourTag>;

/// Returns in lane c, for c < kColumns, the sum of lanes c, c + kColumns, … of a vector.
template <int kColumns, class D, class V = hn::Vec<D>>
HWY_INLINE FourVec SumsOfColumns(D d, V v) {
  if constexpr (hn::MaxLanes(D()) > 4) {
    const hn::Half<D> half;
    return SumsOfColumns<kColumns>(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  } else {
    if constexpr (kColumns <= 2) v = hn::Add(v, hn::Shuffle1032(v));
    if constexpr (kColumns == 1) v = hn::Add(v, hn::Shuffle2301(v));
    return v;
  }
}

// Words between prefetch and use (Zen 5, one thread, 256 MiB: 31 instead of 62 ns per page of two groups of 64
// dimensions; 33 at half the distance).
constexpr int64_t kPrefetchBounds = 2048;
// With many registers, queries are loaded once for two pages.
constexpr int kPagesAtOnce = kVectors == 4 ? 2 : 1;

/// Raises bounds[p], of page p, to the bounds of kQueryCount queries from `first` on, one column per lane. NaN is
/// ignored. words: those of the first page.
template <int kColumns, int kPages, int kQueryCount>
HWY_INLINE void RaiseBounds(const BoundTask& task, const uint32_t* HWY_RESTRICT words, int64_t first,
                            FourVec* bounds) {
  const FloatTag d;
  const WordTag dw;
  const float* HWY_RESTRICT below = task.below + first * task.n;
  const float* HWY_RESTRICT above = task.above + first * task.n;
  FloatVec low[kPages][kQueryCount], high[kPages][kQueryCount];
  FATHOM_UNROLL
  for (int p = 0; p < kPages; ++p) {
    FATHOM_UNROLL
    for (int q = 0; q < kQueryCount; ++q) low[p][q] = high[p][q] = hn::Zero(d);
  }
  for (int64_t i = 0; i < task.n; i += Lanes()) {
    FloatVec minimum[kPages], maximum[kPages];
    FATHOM_UNROLL
    for (int p = 0; p < kPages; ++p) {
      const auto pairs = hn::LoadU(dw, words + p * task.n + i);
      PrefetchToL1(words + p * task.n + i + kPrefetchBounds);
      minimum[p] = hn::BitCast(d, hn::ShiftLeft<16>(pairs));
      maximum[p] = hn::BitCast(d, hn::And(pairs, hn::Set(dw, 0xffff0000u)));
    }
    FATHOM_UNROLL
    for (int q = 0; q < kQueryCount; ++q) {
      const auto negative = hn::LoadU(d, below + q * task.n + i), positive = hn::LoadU(d, above + q * task.n + i);
      FATHOM_UNROLL
      for (int p = 0; p < kPages; ++p) {
        low[p][q] = hn::MulAdd(negative, minimum[p], low[p][q]);
        high[p][q] = hn::MulAdd(positive, maximum[p], high[p][q]);
      }
    }
  }
  FATHOM_UNROLL
  for (int p = 0; p < kPages; ++p) {
    FATHOM_UNROLL
    for (int q = 0; q < kQueryCount; ++q)  // on x86, Max returns its second operand if one is NaN
      bounds[p] = hn::Max(SumsOfColumns<kColumns>(d, hn::Add(low[p][q], high[p][q])), bounds[p]);
  }
}

template <int kColumns, int kPages>
HWY_INLINE void LargestBoundsOf(const BoundTask& task, int64_t page) {
  const uint32_t* words = task.bounds + page * task.n;
  FourVec bounds[kPages];
  FATHOM_UNROLL
  for (int p = 0; p < kPages; ++p) bounds[p] = hn::Set(FourTag(), kMinusInfinity);
  int64_t q = 0;
  for (; q + kQueries <= task.count; q += kQueries) RaiseBounds<kColumns, kPages, kQueries>(task, words, q, bounds);
  for (; q < task.count; ++q) RaiseBounds<kColumns, kPages, 1>(task, words, q, bounds);
  FATHOM_UNROLL
  for (int p = 0; p < kPages; ++p) {
    float all[4];
    hn::StoreU(bounds[p], FourTag(), all);
    std::copy_n(all, kColumns, task.out + (page + p) * kColumns);
  }
}

template <int kColumns>
void LargestBoundsOf(const BoundTask& task) {
  int64_t page = 0;
  for (; page + kPagesAtOnce <= task.pages; page += kPagesAtOnce)
    LargestBoundsOf<kColumns, kPagesAtOnce>(task, page);
  for (; page < task.pages; ++page) LargestBoundsOf<kColumns, 1>(task, page);
}

void LargestBounds(const BoundTask& task) {
  if (task.columns == 4) return LargestBoundsOf<4>(task);
  if (task.columns == 2) return LargestBoundsOf<2>(task);
  LargestBoundsOf<1>(task);
}

void FillScores(Kernels& table) {
  table.score_page = ScorePage;
  table.largest_bounds = LargestBounds;
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();
#else
namespace fathom::HWY_NAMESPACE {
void FillScores(Kernels& /*table*/) {}  // no vector target: kernels() does not list this table
}  // namespace fathom::HWY_NAMESPACE
#endif

#if HWY_ONCE
namespace fathom {

HWY_EXPORT(FillScores);
void fill_vector_scores(Kernels& table) { HWY_DYNAMIC_DISPATCH(FillScores)(table); }

}  // namespace fathom
#endif
