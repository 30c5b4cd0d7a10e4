#pragma once

#include <span>
#include <vector>

#include "attend/queries.h"
#include "base/aligned.h"
#include "base/thread_pool.h"

namespace fathom {

/// Rotates the query of one row and head of a layer by the row's position. out: [key_dim]; spare: [key_dim],
/// scratch.
void rotate_query(const LayerQueries& queries, int64_t row, int head, float* spare, float* out);

/// Inverse-rotates queries by a position: R(−position)·q. If the queries are rotated by their own positions, their
/// products with the stored keys of a page at `position` are the scores. queries: [count, dim], in and out.
void inverse_rotate(const Kernels& kernels, const PositionRotations& rotations, int64_t position, int dim,
                    std::span<float> queries);

/// Tokens [begin, end) of a sequence that are scored.
struct ScoreRange {
  int64_t begin = 0, end = 0;
  int64_t position = -1;  // position at which every page is scored; −1: its own
};

/// Computes scores of queries and keys, one page at a time. Keeps working memory, so each thread needs its own.
class KeyScores {
 public:
  /// The arguments must outlive the object.
  KeyScores(const Kernels& kernels, const PageStore& store, const PositionRotations& rotations);

  /// Returns [count, 64]: the scores of a page at `position`, valid until the next call. Columns after the page's
  /// last token are undefined. queries: [count, key_dim], rotated by their positions.
  const float* of_page(PageId page, int64_t position, const float* queries, int count);
  /// Like of_page(), for keys in the layout of a page.
  const float* of_keys(const std::byte* keys, int64_t position, const float* queries, int count);
  /// Scores the tokens of page-table entries [begin, end) that are in `range`. The score of query i and token t
  /// goes to out[i · stride + t − range.begin]; masked tokens score −∞.
  void of_entries(const PageTable& table, size_t begin, size_t end, const ScoreRange& range, const float* queries,
                  int count, float* out, int64_t stride);

 private:
  const Kernels& kernels_;
  const PageStore& store_;
  const PositionRotations& rotations_;
  std::vector<float> rotated_, scores_;
  AlignedBuffer<float> tile_;
};

/// Computes the scores of queries with the tokens of a layer, on all threads. Masked tokens score −∞. queries:
/// [kv_heads, count, key_dim], rotated by their positions. Resizes scores to [kv_heads, count, range.end −
/// range.begin].
void score_layer(const LayerQueries& layer, const ScoreRange& range, const float* queries, int count,
                 ThreadPool& pool, std::vector<float>& scores);

/// Sets the scores of tokens that are masked in a page table to −∞. scores[i] belongs to token begin + i.
void mask_scores(const PageTable& table, int64_t begin, std::span<float> scores);

/// Keys that a selector owns, in the layout of pages.
class KeyTable {
 public:
  KeyTable(PageFormat format, int key_dim) : format_(format), key_dim_(key_dim) {}  // format: kBF16 or kF32
  /// Appends a key: [key_dim].
  void add(const float* key);
  int64_t size() const { return size_; }
  /// Removes all keys after the first `size`.
  void shorten(int64_t size);
  /// Computes q·k of all queries and keys. queries: [count, key_dim]; out: the scores of query i at out + i·stride.
  void score(const Kernels& kernels, const float* queries, int count, float* out, int64_t stride) const;
  size_t bytes() const { return pages_.size(); }
  void save(ByteWriter& out) const;
  /// Replaces the keys by those that save() wrote. Throws Error if there are more than `most`.
  void load(ByteReader& in, int64_t most);

 private:
  static int64_t page_count(int64_t size) { return (size + kPageTokens - 1) / kPageTokens; }

  PageFormat format_;
  int key_dim_;
  int64_t size_ = 0;
  std::vector<std::byte> pages_;
};

/// A score buffer that is reused by later passes, so that they need no allocation. A copy (a fork's) starts empty,
/// and so does a loaded one.
struct ScoreMemory {
  ScoreMemory() = default;
  ScoreMemory(const ScoreMemory&) {}
  size_t bytes() const { return bytes_of(scores); }
  static void save(ByteWriter&) {}
  static void load(ByteReader&) {}
  std::vector<float> scores;
};

/// Replaces scores by softmax(scale · scores), or by zeros if no score is above −∞.
void softmax_scores(const Kernels& kernels, std::span<float> scores, float scale);

/// Returns the soft vote of all heads, [tokens]: the sum over heads of softmax(scale · scores of the head). scores:
/// [heads, tokens], replaced by the softmax of each head.
std::vector<float> soft_vote(const Kernels& kernels, std::span<float> scores, int heads, float scale,
                             ThreadPool& pool);

/// Replaces each score by the maximum of the `width` scores centred on it. width: odd.
void max_pool(std::span<float> scores, int64_t width);
/// Replaces each score by the mean of the `width` scores centred on it; scores beyond the ends count as 0. width:
/// odd.
void mean_pool(std::span<float> scores, int64_t width);

/// Returns the indices of the k highest scores above −∞, in increasing order. Among equal scores the last ones are
/// selected.
std::vector<int64_t> top_scores(std::span<const float> scores, int64_t k);

/// Returns the cosine of two vectors; 1 if one of them is zero.
double cosine_of(std::span<const float> x, std::span<const float> y);

}  // namespace fathom
