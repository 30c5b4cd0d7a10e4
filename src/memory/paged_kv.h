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

/// Positions stay below this, so that sums of them and tables by them cannot overflow.
inline constexpr int64_t kPositionLimit = int64_t{1} << 40;

/// Bits [begin, end) of a page's mask; 0 ≤ begin, end ≤ 64, empty when begin ≥ end.
inline uint64_t page_bits(int64_t begin, int64_t end) {
  if (begin < 0) begin = 0;
  if (end > 64) end = 64;
  if (begin >= end) return 0;
  const uint64_t below_end = end == 64 ? ~uint64_t{0} : (uint64_t{1} << end) - 1;
  return below_end & ~((uint64_t{1} << begin) - 1);
}

/// Tokens of a page table that have been moved together (PagedKv::compact): they lie in order from index `begin` of
/// the sequence on.
struct CompactedTokens {
  int64_t begin = 0;
  int64_t shift = 0;                      // positions minus indices
  std::vector<int64_t> original_indices;  // the index at which each was read; empty: none has moved

  int64_t end() const { return begin + static_cast<int64_t>(original_indices.size()); }
  /// The index at which the token that lies at `index` was read.
  int64_t original_index(int64_t index) const {
    return index >= begin && index < end() ? original_indices[index - begin] : index;
  }
};

/// What compacting a page table would do.
struct TableGaps {
  int64_t masked = 0;     // tokens of its span of which nothing is visible
  int64_t rewritten = 0;  // tokens that compacting copies
};
TableGaps gaps_of(const PageTable& table);

/// The nodes of an open draft in one head, on at most two pages of their own. Node j lies in entry j of its page,
/// rotated as if it followed the committed tokens on its path, so that accepting a path copies bits.
struct DraftPages {
  std::array<uint64_t, 2> members{};   // nodes of each page
  std::array<int64_t, 2> positions{};  // of offset 0 of each page
  std::array<PageRef, 2> pages;
  std::shared_ptr<const std::vector<float>> rotations;  // [nodes, 2, pairs]: of node j in row j
};

/// What distinguishes one attention layer of a model from another.
struct PagedKvConfig {
  std::shared_ptr<PageStore> store;              // pages of the layer's shape
  int heads = 1;                                 // key/value heads: one page table each
  std::shared_ptr<PositionRotations> rotations;  // of the layer's rotary positions
  float score_factor = 1;                        // of the rotary scaling: multiplies attention scores
  int64_t window = 0;                            // newest tokens that a token attends to, itself included; 0: all
  int page_tokens = kPageTokens;                 // tokens after which a page counts as full, ≤ 64
};

/// The keys and values of one sequence in one attention layer: a page table per key/value head. Forks share pages
/// until one of them writes.
class PagedKv final : public LayerState {
 public:
  explicit PagedKv(PagedKvConfig config);

  std::unique_ptr<LayerState> fork() const override;
  /// A position that does not follow its predecessor starts a page. Throws Error, changing nothing, for a position
  /// outside [0, kPositionLimit).
  void open(const OpenedTokens& tokens) override;
  void accept(std::span<const int> path) override;
  int64_t floor(int64_t tokens) const override { return tokens < tokens_ ? tokens : tokens_; }
  /// The next token then follows the last position. Of a compacted table those tokens go that were read last, and
  /// the others follow, so that the newest of them are the newest of the sequence again.
  void truncate(int64_t tokens) override;
  size_t bytes() const override;
  /// Bytes of the pages alone.
  size_t page_bytes() const;
  PagedKv* paged() override { return this; }

  int heads() const { return config_.heads; }
  int64_t window() const { return config_.window; }
  float score_factor() const { return config_.score_factor; }
  const PageStore& store() const { return *config_.store; }
  std::shared_ptr<PageStore> own_store() const { return config_.store; }
  const PageShape& shape() const { return config_.store->shape(); }
  const PositionRotations& rotations() const { return *config_.rotations; }
  /// Makes rotations up to this position. Not while others read the table, which layers and sequences share.
  void reserve_rotations(int64_t position) { config_.rotations->reserve(position); }
  const PageTable& table(int head) const { return tables_[head]; }
  const CompactedTokens& compacted(int head) const { return compacted_[head]; }
  /// The open draft, or null, and where its nodes lie.
  const DraftTree* draft() const { return draft_; }
  const DraftPages& draft_pages(int head) const { return draft_pages_[head]; }

  /// Counts the changes of a page table's full pages (64 tokens): how often truncate, move_to or compact removed,
  /// shortened, replaced or moved some. While it stays the same, so do they.
  uint64_t version(int head) const { return versions_[head].count; }
  /// Of the page-table entries that hold full pages, those before the one returned are what they were when
  /// version() was `since`.
  size_t first_changed(int head, uint64_t since) const {
    const TableVersion& version = versions_[head];
    if (since == version.count) return table(head).size();
    return since + 1 == version.count ? version.first : 0;
  }

  /// Tokens read so far, those of an open pass included but not those of a draft; and the position after the last
  /// one.
  int64_t tokens() const { return tokens_; }
  int64_t next_position() const { return next_position_; }
  /// One past the largest position of any page: what the rotations must cover.
  int64_t end_position() const { return end_position_; }

  /// Writes the newest `rows` tokens of one head, or the nodes of the open draft. keys: row i at keys +
  /// i·key_stride, key_dim floats, unrotated, rotary pairs side by side; values likewise, or null with stride 0
  /// where they are part of the keys. Keys are rotated by their offset in the page.
  void write(const Kernels& kernels, int head, int64_t rows, const float* keys, int64_t key_stride,
             const float* values, int64_t value_stride);

  /// Moves all tokens so that the first one has this position. Throws Error, changing nothing, if a token would get
  /// a position outside [0, kPositionLimit).
  void move_to(int64_t position);
  /// Throws what move_to would throw.
  void check_move(int64_t position) const;
  /// Masks tokens [begin, end) of the sequence for all later queries, of one head. Keys and values stay in their
  /// pages.
  void mask(int head, int64_t begin, int64_t end);
  /// Masks all tokens below `end` for which keep[token] is 0, and releases full pages of which nothing is visible.
  /// keep: [end].
  void evict(int head, std::span<const char> keep);
  /// Moves the visible tokens of a table together: they become the newest of the sequence, at the positions that
  /// end with the last one, in full pages, and nothing is left before them. Pages without gaps stay as they are; of
  /// the others keys are rotated, and in quantised formats rounded again, unless their offset stays. False, and
  /// nothing is changed, if there are no gaps or the sequence's positions do not follow each other. Throws Error,
  /// changing nothing, when memory is exhausted. Different heads may be compacted at the same time.
  bool compact(const Kernels& kernels, int head);

  /// Appends whole pages that another sequence has written, for tokens that follow the last one: pages[head] holds
  /// 64 tokens each, and is shared from now on. The sequence must end at a page's end.
  void adopt(std::span<const PageId> pages);

 private:
  struct TableVersion {
    uint64_t count = 0;
    size_t first = 0;  // the first entry that the latest change affects
    void add(size_t at) { first = at, ++count; }
  };
  void append(PageTable& table, std::span<const int64_t> positions);
  void open_draft(const DraftTree& tree);
  DraftPages make_draft_pages(const DraftTree& tree, int head) const;
  void close_draft() noexcept;
  void write_draft(const Kernels& kernels, int head, const float* keys, int64_t key_stride, const float* values,
                   int64_t value_stride);
  PageWrite page_write(PageId page) const;
  /// Makes the last page of a table this sequence's own.
  void own_last(PageTable& table);
  /// How far move_to(position) would move tokens.
  int64_t shift_to(int64_t position) const;
  void truncate_table(int head, int64_t tokens);
  void refresh_end();

  PagedKvConfig config_;
  std::vector<PageTable> tables_;           // [heads]
  std::vector<CompactedTokens> compacted_;  // [heads]
  std::vector<TableVersion> versions_;      // [heads]
  int64_t tokens_ = 0, next_position_ = 0, end_position_ = 0;
  const DraftTree* draft_ = nullptr;     // open
  std::vector<DraftPages> draft_pages_;  // [heads]
};

}  // namespace fathom
