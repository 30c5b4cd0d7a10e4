#pragma once

#include <span>
#include <vector>

#include "attend/queries.h"
#include "base/aligned.h"
#include "base/thread_pool.h"

namespace fathom {

/// A query of one row and head of a layer, rotated by the row's position. out: [key_dim]; spare: [key_dim].
void rotate_query(const LayerQueries& queries, int64_t row, int head, float* spare, float* out);

/// Turns queries that are rotated by their positions back by a position, R(−position)·q: their products with keys
/// as they lie in a page there are the scores. queries: [count, dim].
void inverse_rotate(const Kernels& kernels, const PositionRotations& rotations, int64_t position, int dim,
               std::span<float> queries);

/// Which tokens of a sequence are scored: [begin, end).
struct ScoreRange {
  int64_t begin = 0, end = 0;
  int64_t position = -1;  // where every page is taken to sit; −1: where it sits
};

/// Products of queries with keys, a page at a time. Keeps working memory: one for each thread.
class KeyScores {
 public:
  /// All must outlive it.
  KeyScores(const Kernels& kernels, const PageStore& store, const PositionRotations& rotations);

  /// queries: [count, key_dim], rotated by their positions; returns [count, 64], valid until the next call. The
  /// page is taken to sit at `place`; what lies behind its last token means nothing.
  const float* of_page(PageId page, int64_t position, const float* queries, int count);
  /// The same of keys that are laid out as those of a page.
  const float* of_keys(const std::byte* keys, int64_t position, const float* queries, int count);
  /// The same of those tokens of entries [begin, end) of a table that are in range: token t in column t − range.begin;
  /// hidden ones score −∞. out: query i at out + i·stride.
  void of_entries(const PageTable& table, size_t begin, size_t end, const ScoreRange& range, const float* queries,
                int count, float* out, int64_t stride);

 private:
  const Kernels& kernels_;
  const PageStore& store_;
  const PositionRotations& rotations_;
  std::vector<float> turned_, scores_;
  AlignedBuffer<float> tile_;
};

/// Scores of queries with tokens of a layer, hidden ones −∞, on all threads. queries: [kv_heads, count, key_dim],
/// rotated by their positions; scores: [kv_heads, count, range].
void score_layer(const LayerQueries& of, const ScoreRange& range, const float* queries, int count, ThreadPool& pool,
                 std::vector<float>& scores);

/// Scores of tokens that are hidden in a table become −∞. scores[i]: of token begin + i.
void mask_scores(const PageTable& table, int64_t begin, std::span<float> scores);

/// Keys of a selector's own, laid out as those of pages.
class KeyTable {
 public:
  KeyTable(PageFormat format, int key_dim) : format_(format), key_dim_(key_dim) {}  // format: kBF16 or kF32
  void add(const float* key);
  int64_t size() const { return size_; }
  /// Forgets all keys but the first `size`.
  void shorten(int64_t size);
  /// q·k of all queries and keys. queries: [count, key_dim]; out: query i at out + i·stride.
  void score(const Kernels& kernels, const float* queries, int count, float* out, int64_t stride) const;
  size_t bytes() const { return pages_.size(); }

 private:
  PageFormat format_;
  int key_dim_;
  int64_t size_ = 0;
  std::vector<std::byte> pages_;
};

/// Scores from one pass to the next, so that memory is not asked for again and again. A fork has its own.
struct ScoreMemory {
  ScoreMemory() = default;
  ScoreMemory(const ScoreMemory&) {}
  std::vector<float> scores;
};

/// scores becomes softmax(scale · scores); all zero if no score is above −∞.
void softmax_scores(const Kernels& kernels, std::span<float> scores, float scale);

/// The soft vote of heads: Σ over heads of softmax(scale · scores of the head), [tokens]. scores: [heads, tokens],
/// become the softmax of each head.
std::vector<float> soft_vote(const Kernels& kernels, std::span<float> scores, int heads, float scale,
                             ThreadPool& pool);

/// Each score becomes the largest of the `width` around it; width is odd.
void max_pool(std::span<float> scores, int64_t width);
/// Each score becomes the mean of the `width` around it, 0 beyond the ends; width is odd.
void mean_pool(std::span<float> scores, int64_t width);

/// The places of the k highest scores above −∞ (of equal ones the last), in order of place.
std::vector<int64_t> top_scores(std::span<const float> scores, int64_t k);

/// The cosine of two vectors; 1 if one of them is zero.
double cosine_of(std::span<const float> x, std::span<const float> y);

}  // namespace fathom
