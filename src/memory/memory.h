#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "memory/page_store.h"
#include "memory/sequence_state.h"
#include "position/rotary.h"

namespace fathom {

/// Positions stay below this, so that sums of them and tables by them cannot overflow.
inline constexpr int64_t kPositionLimit = int64_t{1} << 40;

/// One entry of a page table: a page, where it sits, and which of its tokens are there.
struct PageSlot {
  PageId page = 0;
  int filled = 0;     // tokens written, from offset 0
  int64_t first = 0;  // sequence index of the token at offset 0: the order in which tokens were read
  int64_t place = 0;  // position of the token at offset 0
  uint64_t mask = 0;  // tokens that may be attended to; 0: the page may be kNoPage
};

/// The page table of one layer and one key/value head: without gaps up to the newest token, from the first one on
/// or, when it has been packed, from a later one.
using Lane = std::vector<PageSlot>;

/// Tokens of a lane that have moved together (Memory::pack): they lie in order from index `begin` of the sequence
/// on.
struct PackedTokens {
  int64_t begin = 0;
  int64_t shift = 0;          // positions minus indices
  std::vector<int64_t> read;  // the index at which each was read; empty: none has moved

  int64_t end() const { return begin + static_cast<int64_t>(read.size()); }
  /// Where the token that lies at `index` was read.
  int64_t read_at(int64_t index) const { return index >= begin && index < end() ? read[index - begin] : index; }
};

/// What packing a lane would do.
struct LaneGaps {
  int64_t hidden = 0;     // tokens of its span of which nothing is left to see
  int64_t rewritten = 0;  // tokens that packing writes anew
};
LaneGaps gaps_of(const Lane& lane);

/// The keys and values of one sequence: a lane per attention layer and key/value head. Forks share pages until one
/// of them writes.
class Memory {
 public:
  /// layers: attention layers; kv_heads: lanes of a layer; page_tokens: after which a page counts as full, ≤ 64.
  Memory(std::shared_ptr<PageStore> store, int layers, int kv_heads, int page_tokens = kPageTokens);
  Memory(Memory&& other) noexcept;
  Memory& operator=(Memory&& other) noexcept;
  ~Memory();

  /// Copies the sequence; pages are shared and copied when either side writes to them. Throws what copying throws
  /// (std::bad_alloc, or what a state's fork() throws) and then changes nothing.
  Memory fork() const;

  int layers() const { return layers_; }
  int kv_heads() const { return kv_heads_; }
  const PageStore& store() const { return *store_; }
  std::shared_ptr<const PageStore> shared_store() const { return store_; }
  const Lane& lane(int layer, int head) const { return lanes_[static_cast<size_t>(layer) * kv_heads_ + head]; }

  const PackedTokens& packed(int layer, int head) const {
    return packed_[static_cast<size_t>(layer) * kv_heads_ + head];
  }

  /// Counts the changes of a page table's full pages (64 tokens): how often rewind, place or pack removed,
  /// shortened, replaced or moved some. While it stays the same, so do they.
  uint64_t edits(int layer, int head) const { return edits_of(layer, head).count; }
  /// Of the page-table entries that hold full pages, those before the one returned are what they were when edits()
  /// was `since`.
  size_t first_edited(int layer, int head, uint64_t since) const {
    const LaneEdits& edits = edits_of(layer, head);
    if (since == edits.count) return lane(layer, head).size();
    return since + 1 == edits.count ? edits.latest : 0;
  }

  /// Tokens read so far, and the position that follows the last one.
  int64_t tokens() const { return tokens_; }
  int64_t next_position() const { return next_position_; }
  /// One past the largest position of any page: what PlaceRotations must cover.
  int64_t end_position() const { return end_position_; }

  /// Opens room in every lane for tokens at these positions; a position that does not follow its predecessor starts
  /// a page. Their keys and values must then be written, layer by layer. Throws Error, changing nothing, for a
  /// position outside [0, kPositionLimit); when memory is exhausted rewind(0) removes what was opened.
  void append(std::span<const int64_t> positions);
  /// Writes the newest `rows` tokens of one lane. keys: row i at keys + i·key_stride, key_dim floats, unrotated,
  /// rotary pairs side by side; values likewise. Keys are rotated by their offset in the page.
  void write(const Kernels& kernels, int layer, int head, int64_t rows, const float* keys, int64_t key_stride,
             const float* values, int64_t value_stride, const PlaceRotations& rotations);

  /// Drops the newest n tokens; the next token follows what is then the last position. Of a packed lane those go
  /// that were read last, and the others follow, so that the newest of them are the newest of the sequence again.
  void rewind(int64_t n);
  /// Moves the whole sequence so that its first token sits at `position`. Throws Error, changing nothing, if a
  /// token would come to sit outside [0, kPositionLimit).
  void place(int64_t position);
  /// Hides tokens [begin, end) of the sequence from all later queries, in one lane or (layer < 0) in all. Keys and
  /// values stay in their pages.
  void hide(int layer, int head, int64_t begin, int64_t end);
  /// Hides all tokens of a lane below `end` for which keep[token] is 0, and gives up full pages of which nothing is
  /// left to see. keep: [end].
  void drop(int layer, int head, std::span<const char> keep);
  /// Moves the visible tokens of a lane together: they become the newest of the sequence, at the positions that end
  /// with the last one, in full pages, and nothing is left before them. Pages without gaps go along as they are; of
  /// the others keys are rotated, and in formats of codes rounded again, unless their offset stays. False, and
  /// nothing is changed, if there are no gaps or the sequence's positions do not follow each other. Throws Error,
  /// changing nothing, when memory is exhausted. Different lanes may be packed at the same time.
  bool pack(const Kernels& kernels, int layer, int head, const PlaceRotations& rotations);

  /// Whose state: a sequence has one of each.
  enum class StateOf { kSelector, kEvictor };
  /// Replaces the state by another, or by none.
  void set_state(StateOf owner, std::unique_ptr<SequenceState> state) { own(owner) = std::move(state); }
  /// null: none
  SequenceState* state(StateOf owner) const { return states_[static_cast<size_t>(owner)].get(); }

 private:
  struct LaneEdits {
    uint64_t count = 0;
    size_t latest = 0;  // the first page-table entry that the latest of them changed
    void add(size_t first) { latest = first, ++count; }
  };
  const LaneEdits& edits_of(int layer, int head) const {
    return edits_[static_cast<size_t>(layer) * kv_heads_ + head];
  }
  std::unique_ptr<SequenceState>& own(StateOf owner) { return states_[static_cast<size_t>(owner)]; }
  Lane& own_lane(int layer, int head) { return lanes_[static_cast<size_t>(layer) * kv_heads_ + head]; }
  void append(Lane& lane, std::span<const int64_t> positions);
  /// Makes the last page of a lane this sequence's own.
  void own_last(Lane& lane);
  /// Removes from a page table the tokens that were not read below tokens_. index: into lanes_.
  void truncate(size_t index);
  void release(const PageSlot& slot) noexcept;
  void release_all() noexcept;
  void refresh_end();

  std::shared_ptr<PageStore> store_;
  int layers_ = 0, kv_heads_ = 0, page_tokens_ = kPageTokens;
  std::vector<Lane> lanes_;           // [layers, kv_heads]
  std::vector<PackedTokens> packed_;  // [layers, kv_heads]
  std::vector<LaneEdits> edits_;      // [layers, kv_heads]
  int64_t tokens_ = 0, next_position_ = 0, end_position_ = 0;
  std::array<std::unique_ptr<SequenceState>, 2> states_;
};

/// Bits [begin, end) of a page's mask; 0 ≤ begin, end ≤ 64, empty when begin ≥ end.
inline uint64_t page_bits(int64_t begin, int64_t end) {
  if (begin < 0) begin = 0;
  if (end > 64) end = 64;
  if (begin >= end) return 0;
  const uint64_t below_end = end == 64 ? ~uint64_t{0} : (uint64_t{1} << end) - 1;
  return below_end & ~((uint64_t{1} << begin) - 1);
}

}  // namespace fathom
