// Attention of few queries over pages of floats that are partly visible: vectors of visible tokens are gathered
// from several pages and processed in one step of the online softmax. Included inside Highway's target loop.
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

/// Vectors of tokens that are processed together. The scores of vector v begin at v · Lanes().
struct GatheredTokens {
  static constexpr int kMaxVectors = kPageTokens / 4;
  int count = 0;
  int64_t page[kMaxVectors];    // the page of each vector
  uint8_t column[kMaxVectors];  // the offset of its first token in the page
  uint64_t mask = 0;            // the gathered tokens in their pages' masks
  bool has_row_masks = false;   // whether any of their pages has row masks
};

/// Iterates over the tokens in the masks of a task's pages, in order.
class VisibleTokens {
 public:
  explicit VisibleTokens(const AttendTask& task) : task_(task) { Begin(); }

  /// Gathers the next vectors, at most as many as a page has. If the masses of pages are computed, all vectors are
  /// of one page. Returns false at the end.
  bool Take(GatheredTokens& gathered) {
    const int lanes = Lanes(), max_vectors = kPageTokens / lanes;
    const uint64_t one = (uint64_t{1} << lanes) - 1;
    gathered.count = 0;
    gathered.mask = 0;
    gathered.has_row_masks = false;
    for (; page_ < task_.page_count; ++page_, Begin()) {
      const PageRead& page = task_.pages[page_];
      while (left_ != 0 && gathered.count < max_vectors) {
        const int column = std::countr_zero(left_) / lanes * lanes, v = gathered.count++;
        gathered.page[v] = page_;
        gathered.column[v] = static_cast<uint8_t>(column);
        gathered.mask |= (page.mask >> column & one) << (v * lanes);
        gathered.has_row_masks |= page.row_masks != nullptr;
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

/// Returns the gathered tokens that are visible to one row.
inline uint64_t RowMask(const AttendTask& task, const GatheredTokens& gathered, int row) {
  if (!gathered.has_row_masks) return gathered.mask;
  const int lanes = Lanes();
  const uint64_t one = (uint64_t{1} << lanes) - 1;
  uint64_t mask = 0;
  for (int v = 0; v < gathered.count; ++v) {
    const uint64_t* rows = task.pages[gathered.page[v]].row_masks;
    mask |= (rows ? rows[row] >> gathered.column[v] & one : one) << (v * lanes);
  }
  return gathered.mask & mask;
}

template <class Words>
HWY_INLINE void PrefetchPairs(const std::byte* p) {
  FATHOM_UNROLL
  for (int i = 0; i < Words::kWords; ++i) PrefetchToL1(p + 64 * i);
}

/// Addresses that will be read, in the order of the reads.
template <class Words>
struct PrefetchList {
  const std::byte** at;
  int64_t count = 0;

  void PrefetchFrom(int64_t from) const {
    for (int64_t i = from; i < count; ++i) PrefetchPairs<Words>(at[i]);
  }
  /// Changes the list to one address per step. Prefetches the addresses after the first `steps` at once; pads a
  /// shorter list with `cached`, an address that is in the caches.
  void Fit(int64_t steps, const void* cached) {
    PrefetchFrom(steps);
    for (int64_t i = count; i < steps; ++i) at[i] = static_cast<const std::byte*>(cached);
  }
};

/// The rows of values that are read for the gathered tokens: pairs of tokens of which at least one is visible.
template <class Word>
struct GatheredValueRows {
  int64_t count = 0;
  const Word* row[kPageTokens / 2];
  uint8_t weight[kPageTokens / 2];  // index of the first token's weight
};

/// Computes the scores of kCols vectors of tokens of one page: out[i, j] = Σ over pairs r of q[i, r] · even + q[i,
/// pairs + r] · odd. tiles: the first pairs of the vectors. prefetch_list: an address to prefetch at each load.
/// kSplit: with separate sums for odd elements, which are twice as many independent chains.
template <int kRows, int kCols, bool kSplit, class Words>
HWY_INLINE void ScoreVectors(const typename Words::Word* const* tiles, int64_t pairs, const float* HWY_RESTRICT q,
                             int64_t q_stride, const std::byte* const* prefetch_list, float* HWY_RESTRICT out) {
  const FloatTag d;
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
      PrefetchPairs<Words>(prefetch_list[j * pairs + r]);
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

/// Adds the weighted values of kCols vectors of columns from `column` on. weights: [kRows, 64]; out: [kRows,
/// stride]. prefetch_list: an address to prefetch at each load.
template <int kRows, int kCols, class Words>
HWY_INLINE void AddRows(const GatheredValueRows<typename Words::Word>& rows, int64_t column,
                        const float* HWY_RESTRICT weights, const std::byte* const* prefetch_list,
                        float* HWY_RESTRICT out, int64_t stride) {
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
      PrefetchPairs<Words>(prefetch_list[n * kCols + j]);
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

/// Writes the even dimensions of each query, followed by the odd ones, for products with vectors of pairs. to:
/// [queries, key_dim].
HWY_INLINE void SplitQueries(const AttendTask& task, int queries, float* HWY_RESTRICT to) {
  const int64_t pairs = task.key_dim / 2;
  for (int i = 0; i < queries; ++i) {
    const float* HWY_RESTRICT q = task.queries + static_cast<int64_t>(i) * task.key_dim;
    for (int64_t r = 0; r < pairs; ++r) {
      to[2 * pairs * i + r] = q[2 * r];
      to[2 * pairs * i + pairs + r] = q[2 * r + 1];
    }
  }
}

/// Inverse-rotates split queries by the page's position p: R(−p)·q. Elements without a rotation must already be in
/// `rotated`.
HWY_INLINE void InverseRotateSplit(const AttendTask& task, const PageRead& page, int queries,
                                   const float* HWY_RESTRICT split, float* HWY_RESTRICT rotated) {
  const FloatTag d;
  const int lanes = Lanes(), pairs = task.rotary_dim / 2, odd_at = task.key_dim / 2;
  int r = 0;
  for (; r + lanes <= pairs; r += lanes) {
    const auto c = hn::LoadU(d, page.cos + r), s = hn::LoadU(d, page.sin + r);
    for (int i = 0; i < queries; ++i) {
      const int64_t at = static_cast<int64_t>(i) * task.key_dim + r;
      const auto even = hn::LoadU(d, split + at), odd = hn::LoadU(d, split + at + odd_at);
      hn::StoreU(hn::MulAdd(odd, s, hn::Mul(even, c)), d, rotated + at);
      hn::StoreU(hn::NegMulAdd(even, s, hn::Mul(odd, c)), d, rotated + at + odd_at);
    }
  }
  for (; r < pairs; ++r) {
    for (int i = 0; i < queries; ++i) {
      const int64_t at = static_cast<int64_t>(i) * task.key_dim + r;
      const float even = split[at], odd = split[at + odd_at];
      rotated[at] = even * page.cos[r] + odd * page.sin[r];
      rotated[at + odd_at] = odd * page.cos[r] - even * page.sin[r];
    }
  }
}

/// Computes the attention of few queries to the visible tokens of a task's pages of floats. While keys are read,
/// the values of the same tokens are prefetched; while values are read, the keys of the next tokens. Take() also
/// loads parts of the next tokens' data, because loads start the hardware prefetcher and prefetch instructions do
/// not (Zen 5, parts of 16 tokens, 512 MiB of pages: 9 to 11 ms instead of 12 to 17).
template <class Words>
class GatheredPages {
  using Word = typename Words::Word;

 public:
  /// rotated: [queries, key_dim]; buffer: 64 · (key_dim + value_dim) floats. Both are overwritten.
  GatheredPages(const AttendTask& task, int queries, float* rotated, float* buffer)
      : task_(task), queries_(queries), visible_(task), rotated_(rotated) {
    // At most 8 addresses per dimension, with vectors of 4 lanes.
    const int64_t max_lines = 8 * std::max(task.key_dim, task.value_dim);
    key_lines_.at = reinterpret_cast<const std::byte**>(buffer);
    value_lines_.at = key_lines_.at + max_lines;
    split_ = reinterpret_cast<float*>(value_lines_.at + max_lines);
    SplitQueries(task, queries, split_);
    std::copy_n(split_, static_cast<int64_t>(queries) * task.key_dim,
                rotated_);  // for the elements without a rotation
    visible_.Take(next_);
    next_rows_ = Rows(next_);
    ListKeys(next_);
    key_lines_.PrefetchFrom(0);
  }

  /// Advances to the next tokens; returns false at the end.
  bool Take() {
    if (next_.count == 0) return false;
    current_ = next_;
    rows_ = next_rows_;
    visible_.Take(next_);
    next_rows_ = Rows(next_);
    LoadNext();
    return true;
  }
  const GatheredTokens& gathered() const { return current_; }

  /// Computes the scores of the current tokens: [queries, 64].
  void Score(float* HWY_RESTRICT scores) {
    ListValues();
    value_lines_.Fit(key_lines_.count, task_.queries);
    for (int v = 0, count = 0; v < current_.count; v += count) {
      count = 1;
      while (count < kVectors && v + count < current_.count && current_.page[v + count] == current_.page[v])
        ++count;
      const PageRead& page = task_.pages[current_.page[v]];
      if (page.cos) InverseRotateSplit(task_, page, queries_, split_, rotated_);
      const float* q = page.cos ? rotated_ : split_;
      int i = 0;
      for (; i + kQueries <= queries_; i += kQueries)
        ScoreTokens<kQueries>(v, count, q + i * task_.key_dim, scores + i * kPageTokens);
      for (; i < queries_; ++i) ScoreTokens<1>(v, count, q + i * task_.key_dim, scores + i * kPageTokens);
    }
  }

  /// Adds the weighted values of the current tokens to the task's out. weights: [queries, 64].
  void AddValues(const float* HWY_RESTRICT weights) {
    ListKeys(next_);
    key_lines_.Fit(value_lines_.count, task_.queries);
    if (!task_.out) return;
    int i = 0;
    for (; i + kQueries <= queries_; i += kQueries)
      AddColumns<kQueries>(weights + i * kPageTokens, task_.out + i * task_.value_dim);
    for (; i < queries_; ++i) AddColumns<1>(weights + i * kPageTokens, task_.out + i * task_.value_dim);
  }

 private:
  const Word* KeysAt(const GatheredTokens& gathered, int vector) const {
    const TileLayout layout{task_.key_dim / 2};
    return reinterpret_cast<const Word*>(task_.pages[gathered.page[vector]].keys) +
           Words::kWords * layout(0, gathered.column[vector], kPageTokens);
  }
  GatheredValueRows<Word> Rows(const GatheredTokens& gathered) const {
    GatheredValueRows<Word> rows;
    if (!task_.out) return rows;
    for (uint64_t left = (gathered.mask | gathered.mask >> 1) & 0x5555555555555555; left != 0; left &= left - 1) {
      const int at = std::countr_zero(left), v = at / Lanes();
      const int64_t pair = (gathered.column[v] + at % Lanes()) / 2;
      rows.row[rows.count] = reinterpret_cast<const Word*>(task_.pages[gathered.page[v]].values) +
                             Words::kWords * pair * task_.value_dim;
      rows.weight[rows.count++] = static_cast<uint8_t>(at);
    }
    return rows;
  }

  void ListKeys(const GatheredTokens& gathered) {
    const int64_t pairs = task_.key_dim / 2;
    const std::byte** HWY_RESTRICT at = key_lines_.at;
    for (int v = 0; v < gathered.count; ++v) {
      const auto* key = reinterpret_cast<const std::byte*>(KeysAt(gathered, v));
      for (int64_t r = 0; r < pairs; ++r) *at++ = key + 4 * Words::kWords * kKeyTile * r;
    }
    key_lines_.count = pairs * gathered.count;
  }
  /// Lists the values in the order in which AddColumns reads them.
  void ListValues() {
    const int64_t lanes = Lanes();
    const std::byte** HWY_RESTRICT at = value_lines_.at;
    const auto list = [&]<int kCols>(int64_t column) HWY_ATTR {
      for (int64_t n = 0; n < rows_.count; ++n) {
        const auto* row = reinterpret_cast<const std::byte*>(rows_.row[n] + Words::kWords * column);
        for (int j = 0; j < kCols; ++j) *at++ = row + 4 * Words::kWords * j * lanes;
      }
    };
    int64_t column = 0;
    for (; column + kVectors * lanes <= task_.value_dim; column += kVectors * lanes)
      list.template operator()<kVectors>(column);
    for (; column + lanes <= task_.value_dim; column += lanes) list.template operator()<1>(column);
    value_lines_.count = at - value_lines_.at;
  }
  /// Loads one line of each kilobyte of the next tokens' data. The hardware then prefetches the neighbouring lines.
  void LoadNext() const {
    constexpr int64_t kStep = 1024;
    const auto load = [](const void* p) { static_cast<void>(*static_cast<const volatile uint8_t*>(p)); };
    const int64_t tile_bytes = 2 * Words::kWords * kKeyTile * task_.key_dim;
    for (int v = 0; v < next_.count; ++v) {
      const auto* key = reinterpret_cast<const std::byte*>(KeysAt(next_, v));
      for (int64_t b = 0; b < tile_bytes; b += kStep) load(key + b);
    }
    const int64_t row_bytes = 4 * Words::kWords * task_.value_dim, every = std::max<int64_t>(1, kStep / row_bytes);
    for (int64_t n = 0; n < next_rows_.count; n += every) load(next_rows_.row[n]);
  }

  template <int kRows>
  void ScoreTokens(int first, int count, const float* q, float* scores) const {
    const Word* tiles[kVectors] = {};
    for (int j = 0; j < count; ++j) tiles[j] = KeysAt(current_, first + j);
    const int64_t pairs = task_.key_dim / 2;
    const std::byte* const* prefetch_list = value_lines_.at + first * pairs;
    const auto score = [&]<int kCols, bool kSplit = false>() HWY_ATTR {
      ScoreVectors<kRows, kCols, kSplit, Words>(tiles, pairs, q, task_.key_dim, prefetch_list,
                                                scores + first * Lanes());
    };
    if (count == kVectors) return score.template operator()<kVectors>();
    if (count == 3) return score.template operator()<std::min(3, kVectors)>();
    if (count == 2) return score.template operator()<2>();
    // The last page has a single visible vector if the row is near its beginning. The sums must then be those of a
    // block with later rows, which see more vectors. Pages before it have one if their other tokens are not
    // selected.
    if (current_.page[first] == task_.page_count - 1) return score.template operator()<1>();
    score.template operator()<1, true>();
  }
  template <int kRows>
  void AddColumns(const float* weights, float* out) const {
    const int64_t lanes = Lanes(), width = task_.value_dim;
    const std::byte* const* prefetch_list = key_lines_.at;
    int64_t column = 0;
    for (; column + kVectors * lanes <= width; column += kVectors * lanes, prefetch_list += kVectors * rows_.count)
      AddRows<kRows, kVectors, Words>(rows_, column, weights, prefetch_list, out, width);
    for (; column + lanes <= width; column += lanes, prefetch_list += rows_.count)
      AddRows<kRows, 1, Words>(rows_, column, weights, prefetch_list, out, width);
    for (; column < width; ++column) {
      for (int i = 0; i < kRows; ++i) {
        for (int64_t n = 0; n < rows_.count; ++n) {
          const Word* pair = rows_.row[n] + Words::kWords * column;
          const float* weight = weights + i * kPageTokens + rows_.weight[n];
          out[i * width + column] += weight[0] * Words::Element(pair, 0) + weight[1] * Words::Element(pair, 1);
        }
      }
    }
  }

  const AttendTask& task_;
  int queries_;
  VisibleTokens visible_;
  GatheredTokens current_, next_;
  GatheredValueRows<Word> rows_, next_rows_;
  float *rotated_, *split_;  // [queries, key_dim], even dimensions followed by odd ones
  PrefetchList<Words> key_lines_, value_lines_;
};

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();
#endif

#endif
