#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "memory/layer_state.h"
#include "memory/page_table.h"
#include "position/rotary.h"

namespace fathom {

/// Upper bound of positions, exclusive. It keeps sums of positions and the sizes of tables indexed by position from
/// overflowing.
inline constexpr int64_t kPositionLimit = int64_t{1} << 40;

/// Returns a page mask with bits [begin, end) set. Bounds are clamped to [0, 64]; 0 if begin ≥ end.
inline uint64_t page_bits(int64_t begin, int64_t end) {
  if (begin < 0) begin = 0;
  if (end > 64) end = 64;
  if (begin >= end) return 0;
  const uint64_t below_end = end == 64 ? ~uint64_t{0} : (uint64_t{1} << end) - 1;
  return below_end & ~((uint64_t{1} << begin) - 1);
}

/// The tokens of a page table that PagedKv::compact moved together. In their original order they occupy the
/// consecutive sequence indices [begin, end()).
struct CompactedTokens {
  int64_t begin = 0;
  int64_t shift = 0;                      // position minus index, equal for all tokens
  std::vector<int64_t> original_indices;  // original index of each token, ascending; empty: never compacted

  int64_t end() const { return begin + static_cast<int64_t>(original_indices.size()); }
  /// Returns the original index (order of reading) of the token that is now at `index`.
  int64_t original_index(int64_t index) const {
    return index >= begin && index < end() ? original_indices[index - begin] : index;
  }
};

/// The effect that compacting a page table would have.
struct TableGaps {
  int64_t masked = 0;     // masked tokens between the table's first and last index
  int64_t rewritten = 0;  // tokens that compacting would copy
};
/// Computes the effect of compacting a table.
TableGaps gaps_of(const PageTable& table);

/// The parameters of one attention layer's state.
struct PagedKvConfig {
  std::shared_ptr<PageStore> store;              // pages of the layer's shape
  int heads = 1;                                 // key/value heads, each with one page table
  std::shared_ptr<PositionRotations> rotations;  // rotary tables of the layer
  float score_factor = 1;                        // attention scores are multiplied by it (rotary scaling)
  int64_t window = 0;                            // newest tokens that a token attends to, itself included; 0: all
  int page_tokens = kPageTokens;                 // tokens per page, ≤ 64; fewer for models with landmarks
};

/// The keys and values of one sequence in one attention layer, with one page table per key/value head. Forks share
/// pages until one of them writes to them.
class PagedKv final : public LayerState {
 public:
  explicit PagedKv(PagedKvConfig config);

  std::unique_ptr<LayerState> fork() const override;
  /// Returns a copy as it was when the newest `later` tokens of the open pass had not been opened: with the same
  /// versions of the page tables. For reading only.
  std::unique_ptr<const PagedKv> without_newest(int64_t later) const;
  /// Appends to the last page or to new pages. A position that is not its predecessor's plus 1 starts a new page.
  /// Throws Error, changing nothing, for a position outside [0, kPositionLimit).
  void open(const OpenedTokens& tokens) override;
  void accept(int64_t count) override;
  int64_t floor(int64_t tokens) const override { return tokens < tokens_ ? tokens : tokens_; }
  /// The next token continues at the position after the last kept one. In a compacted table the tokens with
  /// original index ≥ `tokens` are removed, and the others are shifted so that the last of them is at index
  /// `tokens` − 1.
  void truncate(int64_t tokens) override;
  size_t bytes() const override;
  /// Bytes of the pages, without page tables.
  size_t page_bytes() const;
  PagedKv* paged() override { return this; }

  int heads() const { return config_.heads; }
  int64_t window() const { return config_.window; }
  float score_factor() const { return config_.score_factor; }
  const PageStore& store() const { return *config_.store; }
  std::shared_ptr<PageStore> shared_store() const { return config_.store; }
  const PageShape& shape() const { return config_.store->shape(); }
  const PositionRotations& rotations() const { return *config_.rotations; }
  /// Extends the rotary table to cover positions below `position`. Layers and sequences share the table: no other
  /// thread may read it meanwhile.
  void reserve_rotations(int64_t position) { config_.rotations->reserve(position); }
  const PageTable& table(int head) const { return tables_[head]; }
  const CompactedTokens& compacted(int head) const { return compacted_[head]; }

  /// Returns the page-table version: the number of changes to existing full pages (64 tokens) of the table. A
  /// change is a call of truncate, move_to or compact that removed, shortened, replaced or moved a full page. While
  /// the version is the same, existing full pages are unchanged.
  uint64_t version(int head) const { return versions_[head].count; }
  /// Returns an index e such that full pages in entries before e have not changed since version() was `since`.
  size_t first_changed(int head, uint64_t since) const {
    const TableVersion& version = versions_[head];
    if (since == version.count) return table(head).size();
    return since + 1 == version.count ? version.first : 0;
  }

  /// Number of tokens, including those of an open pass.
  int64_t tokens() const { return tokens_; }
  /// The position after the last token.
  int64_t next_position() const { return next_position_; }
  /// One past the largest position of any token. Rotary tables must cover all positions below it.
  int64_t end_position() const { return end_position_; }

  /// Writes the newest `rows` tokens of one head. keys: row i at keys +
  /// i·key_stride, key_dim floats, unrotated, rotary pairs adjacent. values: row i at values + i·value_stride,
  /// value_dim floats; null with stride 0 if values are part of the keys. Stored keys are rotated by their offset
  /// in the page.
  void write(const Kernels& kernels, int head, int64_t rows, const float* keys, int64_t key_stride,
             const float* values, int64_t value_stride);

  /// Shifts the positions of all tokens so that the first one has this position. Rewrites no page. Throws Error,
  /// changing nothing, if a position would be outside [0, kPositionLimit).
  void move_to(int64_t position);
  /// Throws what move_to(position) would throw.
  void check_move(int64_t position) const;
  /// Masks tokens [begin, end) of one head for all later queries. Keys and values are not removed.
  void mask(int head, int64_t begin, int64_t end);
  /// Masks each token t < keep.size() with keep[t] = 0, and releases full pages without visible tokens.
  void evict(int head, std::span<const char> keep);
  /// Compacts a page table: the visible tokens move together into full pages, at the consecutive positions that end
  /// with the last position of the sequence; masked tokens are removed. Pages without gaps at the beginning and the
  /// end of the table are kept. Other tokens are copied; a key whose offset in the page changes is rotated, and
  /// rounded again in quantised formats. Returns false, changing nothing, if there are no gaps or the positions of
  /// the sequence are not consecutive. Throws Error, changing nothing, when memory is exhausted. Different heads
  /// may be compacted in parallel. merge_pages: also if there are no gaps, to fill pages that are filled in part.
  bool compact(const Kernels& kernels, int head, bool merge_pages = false);

  /// Appends tokens [begin, end) of another sequence's layer of the same shape, sharing its pages. The first of
  /// them gets this position, and the others keep their distances to it. `begin` must be the first token of a page
  /// in each table of `from`, and no table of `from` compacted. Throws Error for a position outside [0,
  /// kPositionLimit), and std::bad_alloc; truncate(tokens before) then restores the previous state.
  void adopt(const PagedKv& from, int64_t begin, int64_t end, int64_t position);
  /// Takes over the tokens of an empty layer from page tables, such as those of a context file. tables, compacted:
  /// [heads]. The entries of each table must cover consecutive tokens up to the last one, `tokens`.
  void restore(std::vector<PageTable> tables, std::vector<CompactedTokens> compacted, int64_t tokens);

  /// Appends 64 tokens that another sequence has written, at the next positions. pages: [heads], one full page
  /// each, shared from now on. The number of tokens must be a multiple of 64. Throws Error for a position outside
  /// [0, kPositionLimit), and std::bad_alloc; after std::bad_alloc, truncate(tokens before) restores the previous
  /// state.
  void adopt(std::span<const PageId> pages);

 private:
  struct TableVersion {
    uint64_t count = 0;
    size_t first = 0;  // first entry that the latest change affects
    void add(size_t at) { first = at, ++count; }
  };
  void append(PageTable& table, std::span<const int64_t> positions);
  PageWrite page_write(PageId page) const;
  /// Copies the last page of a table if it is shared, so that it can be written to.
  void unshare_last(PageTable& table);
  /// Returns the number that move_to(position) adds to all positions.
  int64_t shift_to(int64_t position) const;
  void truncate_table(int head, int64_t tokens);
  /// Recomputes next_position_ and end_position_ from the first table.
  void refresh_end();

  PagedKvConfig config_;
  std::vector<PageTable> tables_;           // [heads]
  std::vector<CompactedTokens> compacted_;  // [heads]
  std::vector<TableVersion> versions_;      // [heads]
  int64_t tokens_ = 0, next_position_ = 0, end_position_ = 0;
  int64_t opened_from_ = 0;  // number of tokens before the latest call of open
};

}  // namespace fathom
