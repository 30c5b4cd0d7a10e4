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
  int64_t page[kMost];    // of each vector
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

template <class Words>
HWY_INLINE void FetchPairs(const std::byte* p) {
  FATHOM_UNROLL
  for (int i = 0; i < Words::kWords; ++i) FetchSoon(p + 64 * i);
}

/// Addresses that will be read, in their order.
template <class Words>
struct LineList {
  const std::byte** at;
  int64_t count = 0;

  void Fetch(int64_t from) const {
    for (int64_t i = from; i < count; ++i) FetchPairs<Words>(at[i]);
  }
  /// Makes it one for each of so many steps: what is beyond is asked for at once, what is missing is `near`.
  void Fit(int64_t steps, const void* near) {
    Fetch(steps);
    for (int64_t i = count; i < steps; ++i) at[i] = static_cast<const std::byte*>(near);
  }
};

/// The rows of values that are read for what is gathered: pairs of tokens, one of which at least may be seen.
template <class Word>
struct GatheredRows {
  int64_t count = 0;
  const Word* row[kPageTokens / 2];
  uint8_t weight[kPageTokens / 2];  // where the weight of the first token is
};

/// Scores of kCols vectors of tokens of one page: out[i, j] = Σ over pairs r of q[i, r] · even + q[i, pairs + r] ·
/// odd. tiles: where the vectors' first pairs are. prefetch: an address to ask for at each load.
template <int kRows, int kCols, class Words>
HWY_INLINE void ScoreVectors(const typename Words::Word* const* tiles, int64_t pairs, const float* HWY_RESTRICT q,
                             int64_t q_stride, const std::byte* const* prefetch, float* HWY_RESTRICT out) {
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
      FetchPairs<Words>(prefetch[j * pairs + r]);
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
/// stride].
template <int kRows, int kCols, class Words>
HWY_INLINE void AddRows(const GatheredRows<typename Words::Word>& rows, int64_t column,
                        const float* HWY_RESTRICT weights, const std::byte* const* prefetch, float* HWY_RESTRICT out,
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
      FetchPairs<Words>(prefetch[n * kCols + j]);
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

/// Even dimensions of each query, then the odd ones: what the parts of pages are met with. to: [queries, key_dim]
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

/// Split queries rotated back by the page's place: R(−place)·q. What does not rotate must be there already.
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

/// Reads a task's pages of floats for few queries, gathered by gathered. While keys are read, the values that
/// belong to them are asked for, and while those are read, the keys that come next. What comes after that is
/// touched, so that it is on its way from memory: read, for what is only asked for does not teach the machine what
/// follows (Zen 5, parts of 16 tokens, 512 MiB of pages: 9 to 11 ms, where asking for it has 12 to 17).
template <class Words>
class Parts {
  using Word = typename Words::Word;

 public:
  /// rotated: [queries, key_dim]; room: for 64 · (key_dim + value_dim) floats. Both are written.
  Parts(const AttendTask& task, int queries, float* rotated, float* room)
      : task_(task), queries_(queries), gathering_(task), rotated_(rotated) {
    // At most 8 addresses a dimension, where vectors have 4 lanes.
    const int64_t most = 8 * std::max(task.key_dim, task.value_dim);
    key_lines_.at = reinterpret_cast<const std::byte**>(room);
    value_lines_.at = key_lines_.at + most;
    split_ = reinterpret_cast<float*>(value_lines_.at + most);
    SplitQueries(task, queries, split_);
    std::copy_n(split_, static_cast<int64_t>(queries) * task.key_dim, rotated_);  // what does not turn is there
    gathering_.Take(next_);
    next_rows_ = Rows(next_);
    ListKeys(next_);
    key_lines_.Fetch(0);
  }

  /// Goes on to what is read next; false at the end.
  bool Take() {
    if (next_.count == 0) return false;
    now_ = next_;
    rows_ = next_rows_;
    gathering_.Take(next_);
    next_rows_ = Rows(next_);
    Touch();
    return true;
  }
  const Gathered& gathered() const { return now_; }

  /// scores: [queries, 64]
  void Score(float* HWY_RESTRICT scores) {
    ListValues();
    value_lines_.Fit(key_lines_.count, task_.queries);
    for (int v = 0, count = 0; v < now_.count; v += count) {
      count = 1;
      while (count < kVectors && v + count < now_.count && now_.page[v + count] == now_.page[v]) ++count;
      const PageRead& page = task_.pages[now_.page[v]];
      if (page.cos) InverseRotateSplit(task_, page, queries_, split_, rotated_);
      const float* q = page.cos ? rotated_ : split_;
      int i = 0;
      for (; i + kQueries <= queries_; i += kQueries)
        ScoreTokens<kQueries>(v, count, q + i * task_.key_dim, scores + i * kPageTokens);
      for (; i < queries_; ++i) ScoreTokens<1>(v, count, q + i * task_.key_dim, scores + i * kPageTokens);
    }
  }

  /// weights: [queries, 64]
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
  const Word* KeysAt(const Gathered& gathered, int vector) const {
    const InTiles place{task_.key_dim / 2};
    return reinterpret_cast<const Word*>(task_.pages[gathered.page[vector]].keys) +
           Words::kWords * place(0, gathered.column[vector], kPageTokens);
  }
  GatheredRows<Word> Rows(const Gathered& gathered) const {
    GatheredRows<Word> rows;
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

  void ListKeys(const Gathered& gathered) {
    const int64_t pairs = task_.key_dim / 2;
    const std::byte** HWY_RESTRICT at = key_lines_.at;
    for (int v = 0; v < gathered.count; ++v) {
      const auto* key = reinterpret_cast<const std::byte*>(KeysAt(gathered, v));
      for (int64_t r = 0; r < pairs; ++r) *at++ = key + 4 * Words::kWords * kKeyTile * r;
    }
    key_lines_.count = pairs * gathered.count;
  }
  /// In the order of AddColumns.
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
  /// Reads one line of each kilobyte of what comes next: the machine asks for their neighbours by itself then.
  void Touch() const {
    constexpr int64_t kStep = 1024;
    const auto touch = [](const void* p) { static_cast<void>(*static_cast<const volatile uint8_t*>(p)); };
    const int64_t tile_bytes = 2 * Words::kWords * kKeyTile * task_.key_dim;
    for (int v = 0; v < next_.count; ++v) {
      const auto* key = reinterpret_cast<const std::byte*>(KeysAt(next_, v));
      for (int64_t b = 0; b < tile_bytes; b += kStep) touch(key + b);
    }
    const int64_t row_bytes = 4 * Words::kWords * task_.value_dim, every = std::max<int64_t>(1, kStep / row_bytes);
    for (int64_t n = 0; n < next_rows_.count; n += every) touch(next_rows_.row[n]);
  }

  template <int kRows>
  void ScoreTokens(int first, int count, const float* q, float* scores) const {
    const Word* tiles[kVectors] = {};
    for (int j = 0; j < count; ++j) tiles[j] = KeysAt(now_, first + j);
    const int64_t pairs = task_.key_dim / 2;
    const std::byte* const* prefetch = value_lines_.at + first * pairs;
    const auto score = [&]<int kCols>() HWY_ATTR {
      ScoreVectors<kRows, kCols, Words>(tiles, pairs, q, task_.key_dim, prefetch, scores + first * Lanes());
    };
    if (count == kVectors) return score.template operator()<kVectors>();
    if (count == 3) return score.template operator()<std::min(3, kVectors)>();
    if (count == 2) return score.template operator()<2>();
    score.template operator()<1>();
  }
  template <int kRows>
  void AddColumns(const float* weights, float* out) const {
    const int64_t lanes = Lanes(), width = task_.value_dim;
    const std::byte* const* prefetch = key_lines_.at;
    int64_t column = 0;
    for (; column + kVectors * lanes <= width; column += kVectors * lanes, prefetch += kVectors * rows_.count)
      AddRows<kRows, kVectors, Words>(rows_, column, weights, prefetch, out, width);
    for (; column + lanes <= width; column += lanes, prefetch += rows_.count)
      AddRows<kRows, 1, Words>(rows_, column, weights, prefetch, out, width);
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
  Gathering gathering_;
  Gathered now_, next_;
  GatheredRows<Word> rows_, next_rows_;
  float *rotated_, *split_;  // [queries, key_dim], even dimensions and odd ones apart
  LineList<Words> key_lines_, value_lines_;
};

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();
#endif

#endif
