// Products of queries with the keys of a page, for those who choose among keys, once per instruction set.
#include "kernels/vector.h"

// Highway's order: the target loop first, then what it compiles once per target.
// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/vector_scores.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/attend_floats-inl.h"
#include "kernels/attend_codes-inl.h"
// clang-format on

#if FATHOM_VECTOR_TARGET
HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

template <class Pairs>
HWY_INLINE void ScorePairs(const Pairs& pairs, const ScoreTask& task) {
  PairProductRows<false>(pairs, AllPairs{task.key_dim / 2}, kPageTokens, task.queries_count, task.queries,
                         task.key_dim, task.scores, kPageTokens);
}

/// Few queries meet floats as they lie, many a tile of them.
template <class Pairs>
void ScoreFloats(const ScoreTask& task, float* HWY_RESTRICT tile) {
  const Pairs pairs{reinterpret_cast<const typename Pairs::Word*>(task.keys), {task.keys}};
  if (task.queries_count < kTileQueries) return ScorePairs(pairs, task);
  Deinterleave(pairs, task.key_dim / 2, kPageTokens, tile);
  ScorePairs(TilePairs{tile}, task);
}

template <int kBits>
void ScoreCodes(const ScoreTask& task, float* HWY_RESTRICT tile) {
  CodeKeyTile<kBits>(task.keys, task.key_dim, tile);
  ScorePairs(TilePairs{tile}, task);
}

void ScorePage(const ScoreTask& task, float* scratch) {
  switch (task.format) {
    case PageFormat::kBF16:
      return ScoreFloats<Bf16Pairs<SamePlace>>(task, scratch);
    case PageFormat::kF32:
      return ScoreFloats<F32Pairs<SamePlace>>(task, scratch);
    case PageFormat::kQ8:
      return ScoreCodes<8>(task, scratch);
    case PageFormat::kQ4:
      return ScoreCodes<4>(task, scratch);
  }
}

float LargestDot(const float* HWY_RESTRICT x, const float* HWY_RESTRICT others, int64_t count, int64_t n) {
  const FloatTag d;
  const int64_t lanes = Lanes();
  float largest = kMinusInfinity;
  for (int64_t i = 0; i < count; ++i, others += n) {
    auto even = hn::Zero(d), odd = hn::Zero(d);
    int64_t c = 0;
    for (; c + 2 * lanes <= n; c += 2 * lanes) {
      even = hn::MulAdd(hn::LoadU(d, x + c), hn::LoadU(d, others + c), even);
      odd = hn::MulAdd(hn::LoadU(d, x + c + lanes), hn::LoadU(d, others + c + lanes), odd);
    }
    float total = hn::GetLane(hn::SumOfLanes(d, hn::Add(even, odd)));
    for (; c < n; ++c) total += x[c] * others[c];
    largest = total > largest ? total : largest;
  }
  return largest;
}

void FillScores(Kernels& table) {
  table.score_page = ScorePage;
  table.largest_dot = LargestDot;
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();
#else
namespace fathom::HWY_NAMESPACE {
void FillScores(Kernels& /*table*/) {}  // the machine has no such target: kernels() does not offer it
}  // namespace fathom::HWY_NAMESPACE
#endif

#if HWY_ONCE
namespace fathom {

HWY_EXPORT(FillScores);
void fill_vector_scores(Kernels& table) { HWY_DYNAMIC_DISPATCH(FillScores)(table); }

}  // namespace fathom
#endif
