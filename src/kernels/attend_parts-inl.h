// Few queries over pages of floats of which they see a part: what is visible is gathered, vectors of tokens from
// several pages under one softmax. Included inside Highway's target loop.
#if defined(FATHOM_ATTEND_PARTS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_ATTEND_PARTS_INL
#undef FATHOM_ATTEND_PARTS_INL
#else
#define FATHOM_ATTEND_PARTS_INL
#endif

#include <algorithm>
#include <bit>
#include <cstdint>

#include "kernels/attend_floats-inl.h"

#if FATHOM_VECTOR_TARGET
HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

/// Vectors of tokens that are read together, one after the other where their scores are: vector v has those from
/// v · Lanes() on.
struct Gathered {
  static constexpr int kMost = kPageTokens / 4;
  int count = 0;
  int64_t page[kMost];   // of each vector
  uint8_t column[kMost];  // of its first token in the page
  uint64_t mask = 0;      // of the tokens gathered that a row may see
  bool by_rows = false;   // rows see different ones of them
};

/// Goes through what may be seen of a task's pages, in their order.
class Gathering {
 public:
  explicit Gathering(const AttendTask& task) : task_(task) { Begin(); }

  /// The next vectors, as many as a page has; of one page alone where its mass is asked for. False at the end.
  bool Take(Gathered& gathered) {
    const int lanes = Lanes(), most = kPageTokens / lanes;
    const uint64_t one = (uint64_t{1} << lanes) - 1;
    gathered.count = 0;
    gathered.mask = 0;
    gathered.by_rows = false;
    for (; page_ < task_.page_count; ++page_, Begin()) {
      const PageRead& page = task_.pages[page_];
      while (left_ != 0 && gathered.count < most) {
        const int column = std::countr_zero(left_) / lanes * lanes, v = gathered.count++;
        gathered.page[v] = page_;
        gathered.column[v] = static_cast<uint8_t>(column);
        gathered.mask |= (page.mask >> column & one) << (v * lanes);
        gathered.by_rows |= page.row_masks != nullptr;
        left_ &= ~(one << column);
      }
      if (left_ != 0) return true;
      if (task_.mass && gathered.count > 0) return ++page_, Begin(), true;
    }
    return gathered.count > 0;
  }

 private:
  void Begin() { left_ = page_ < task_.page_count ? task_.pages[page_].mask : 0; }

  const AttendTask& task_;
  int64_t page_ = 0;
  uint64_t left_;
};

/// What one row may see of the tokens gathered.
inline uint64_t RowMask(const AttendTask& task, const Gathered& gathered, int row) {
  if (!gathered.by_rows) return gathered.mask;
  const int lanes = Lanes();
  const uint64_t one = (uint64_t{1} << lanes) - 1;
  uint64_t mask = 0;
  for (int v = 0; v < gathered.count; ++v) {
    const uint64_t* rows = task.pages[gathered.page[v]].row_masks;
    mask |= (rows ? rows[row] >> gathered.column[v] & one : one) << (v * lanes);
  }
  return gathered.mask & mask;
}

/// Addresses that will be read, in their order; `at` has room for all that few queries read at once.
struct LineList {
  const std::byte** at;
  int64_t count = 0;

  void Fetch(int64_t from) const {
    for (int64_t i = from; i < count; ++i) __builtin_prefetch(at[i], 0, 3);
  }
  /// Makes it one for each of so many steps: what is beyond is asked for at once, what is missing is `near`.
  void Fit(int64_t steps, const void* near) {
    Fetch(steps);
    for (int64_t i = count; i < steps; ++i) at[i] = static_cast<const std::byte*>(near);
  }
};

/// To the L1: what is asked for to the L2 alone comes late on Zen 5.
template <class Words>
HWY_INLINE void FetchPairs(const std::byte* p) {
  FATHOM_UNROLL
  for (int i = 0; i < Words::kWords; ++i) __builtin_prefetch(p + 64 * i, 0, 3);
}

/// The rows of values that are read for what is gathered: pairs of tokens, one of which at least may be seen.
template <class Word>
struct GatheredRows {
  int64_t count = 0;
  const Word* row[kPageTokens / 2];
  uint8_t weight[kPageTokens / 2];  // where the weight of the first token is
};

/// Scores of kCols vectors of tokens of one page: out[i, j] = Σ over pairs r of q[i, r] · even + q[i, pairs + r] · odd.
/// tiles: where the vectors' first pairs are. ahead: an address to ask for at each load.
template <int kRows, int kCols, class Words>
HWY_INLINE void ScoreVectors(const typename Words::Word* const* tiles, int64_t pairs, const float* HWY_RESTRICT q,
                             int64_t q_stride, const std::byte* const* ahead, float* HWY_RESTRICT out) {
  const FloatTag d;
  constexpr bool kSplit = kCols == 1;  // sums of its own for odd elements, so that twice as many are under way
  const typename Words::Word* at[kCols];
  FATHOM_UNROLL
  for (int j = 0; j < kCols; ++j) at[j] = tiles[j];
  FloatVec sums[kRows][kCols], odd_sums[kRows];
  FATHOM_UNROLL
  for (int i = 0; i < kRows; ++i) {
    odd_sums[i] = hn::Zero(d);
    FATHOM_UNROLL
    for (int j = 0; j < kCols; ++j) sums[i][j] = hn::Zero(d);
  }
  for (int64_t r = 0; r < pairs; ++r) {
    FloatVec even[kCols], odd[kCols];
    FATHOM_UNROLL
    for (int j = 0; j < kCols; ++j) {
      Words::Load(at[j], even[j], odd[j]);
      FetchPairs<Words>(ahead[j * pairs + r]);
      at[j] += kKeyTile * Words::kWords;
    }
    FATHOM_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const auto q0 = hn::Set(d, q[i * q_stride + r]), q1 = hn::Set(d, q[i * q_stride + pairs + r]);
      FATHOM_UNROLL
      for (int j = 0; j < kCols; ++j) {
        sums[i][j] = hn::MulAdd(q0, even[j], sums[i][j]);
        if constexpr (kSplit) {
          odd_sums[i] = hn::MulAdd(q1, odd[j], odd_sums[i]);
        } else {
          sums[i][j] = hn::MulAdd(q1, odd[j], sums[i][j]);
        }
      }
    }
  }
  FATHOM_UNROLL
  for (int i = 0; i < kRows; ++i) {
    FATHOM_UNROLL
    for (int j = 0; j < kCols; ++j)
      hn::StoreU(kSplit ? hn::Add(sums[i][j], odd_sums[i]) : sums[i][j], d, out + i * kPageTokens + j * Lanes());
  }
}

/// Adds the weighted values of kCols vectors of columns from `column` on. weights: [kRows, 64]; out: [kRows, stride].
template <int kRows, int kCols, class Words>
HWY_INLINE void AddRows(const GatheredRows<typename Words::Word>& rows, int64_t column,
                        const float* HWY_RESTRICT weights, const std::byte* const* ahead, float* HWY_RESTRICT out,
                        int64_t stride) {
  const FloatTag d;
  FloatVec sums[kRows][kCols];
  FATHOM_UNROLL
  for (int i = 0; i < kRows; ++i) {
    FATHOM_UNROLL
    for (int j = 0; j < kCols; ++j) sums[i][j] = hn::LoadU(d, out + i * stride + column + j * Lanes());
  }
  for (int64_t n = 0; n < rows.count; ++n) {
    const typename Words::Word* row = rows.row[n] + column * Words::kWords;
    const float* weight = weights + rows.weight[n];
    FloatVec even[kCols], odd[kCols];
    FATHOM_UNROLL
    for (int j = 0; j < kCols; ++j) {
      Words::Load(row + j * Lanes() * Words::kWords, even[j], odd[j]);
      FetchPairs<Words>(ahead[n * kCols + j]);
    }
    FATHOM_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const auto w0 = hn::Set(d, weight[i * kPageTokens]), w1 = hn::Set(d, weight[i * kPageTokens + 1]);
      FATHOM_UNROLL
      for (int j = 0; j < kCols; ++j) sums[i][j] = hn::MulAdd(w1, odd[j], hn::MulAdd(w0, even[j], sums[i][j]));
    }
  }
  FATHOM_UNROLL
  for (int i = 0; i < kRows; ++i) {
    FATHOM_UNROLL
    for (int j = 0; j < kCols; ++j) hn::StoreU(sums[i][j], d, out + i * stride + column + j * Lanes());
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();
#endif

#endif
