#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "memory/layer_state.h"
#include "memory/paged_kv.h"
#include "memory/recurrent_state.h"
#include "memory/sequence_state.h"

namespace fathom {

/// Token ids of a sequence. Copies share all but the newest ones.
class TokenList {
 public:
  int64_t size() const { return static_cast<int64_t>(blocks_.size() * kBlock + tail_.size()); }
  int32_t operator[](int64_t i) const {
    const auto block = static_cast<size_t>(i) / kBlock;
    return block < blocks_.size() ? (*blocks_[block])[i % kBlock] : tail_[i % kBlock];
  }
  /// Throws std::bad_alloc; truncating to what there was before then needs no memory.
  void append(std::span<const int32_t> ids);
  void truncate(int64_t n);
  /// Ids [begin, end).
  std::vector<int32_t> copy(int64_t begin, int64_t end) const;
  size_t bytes() const { return blocks_.size() * sizeof(blocks_[0]) + tail_.size() * sizeof(int32_t); }

 private:
  static constexpr size_t kBlock = 1024;
  void close_tail();

  std::vector<std::shared_ptr<const std::vector<int32_t>>> blocks_;  // full ones
  std::vector<int32_t> tail_;                                        // at most a block
};

/// Where recurrent states of a sequence are kept, so that a rewind reads little again.
struct CheckpointPolicy {
  int64_t spacing = 64;                  // most tokens that a rewind of up to as many reads again
  std::shared_ptr<MemoryBudget> budget;  // of the checkpoints of all sequences; null: no limit
};

/// One sequence of tokens: their ids, what each layer keeps of them, and what methods keep. A pass opens tokens,
/// writes them layer by layer, and commits them.
class Sequence {
 public:
  explicit Sequence(std::vector<std::unique_ptr<LayerState>> layers, CheckpointPolicy checkpoints = {});
  Sequence(Sequence&& other) noexcept = default;
  Sequence& operator=(Sequence&& other) noexcept = default;

  /// Copies the sequence; memory is shared until either side writes to it. Throws std::bad_alloc, or what a state's
  /// fork() throws. Not while tokens are open.
  Sequence fork() const;

  int layers() const { return static_cast<int>(layers_.size()); }
  LayerState& layer(int i) { return *layers_[i]; }
  /// The pages of a layer; null for a layer without.
  PagedKv* paged(int i) { return paged_[i]; }
  const PagedKv* paged(int i) const { return paged_[i]; }
  /// The pages of a layer that has some.
  PagedKv& kv(int i) { return *paged_[i]; }
  const PagedKv& kv(int i) const { return *paged_[i]; }
  /// The recurrence of a layer; null for a layer without.
  RecurrentState* recurrent(int i) { return recurrent_[i]; }
  const RecurrentState* recurrent(int i) const { return recurrent_[i]; }
  bool has_recurrent_layers() const;
  /// The largest number of key/value heads of a layer.
  int max_heads() const;

  /// Tokens read so far, those of an open pass included, and their ids: −1 where embeddings were read.
  int64_t tokens() const { return tokens_; }
  const TokenList& ids() const { return ids_; }
  /// The position after the last token.
  int64_t next_position() const { return next_position_; }
  /// One past the largest position: what rotations must cover.
  int64_t end_position() const;

  /// Opens room for tokens in all layers. ids: [positions], or empty. Throws Error, changing nothing, for a
  /// position outside [0, kPositionLimit) and when memory is exhausted.
  void open(std::span<const int64_t> positions, std::span<const int32_t> ids = {});
  /// What was opened has been written by all layers and stays.
  void commit() noexcept;
  /// What was opened is forgotten, in states of methods, too.
  void abandon() noexcept;

  /// Opens room for a draft behind the newest token; `tree` must stay until accept or abandon. ids: [nodes].
  void open_draft(const DraftTree& tree, std::span<const int32_t> ids);
  /// The draft that is open, or null.
  const DraftTree* draft() const { return draft_; }
  /// Of the draft, which all layers have written, the nodes of one path stay (none: nothing stays). Throws Error,
  /// keeping nothing of the draft, for what is not a path and when memory is exhausted.
  void accept(std::span<const int> path);

  /// Appends 64 tokens that another sequence has read, in pages that both share from now on. pages: [layers],
  /// [heads]; ids: [64]. The sequence must end at a page's end. Recurrent layers need adopt_states when all are
  /// appended. Throws std::bad_alloc, changing nothing.
  void adopt(std::span<const std::vector<PageId>> pages, std::span<const int32_t> ids);
  /// The states of recurrent layers after the newest token: [layers], null for others.
  void adopt_states(std::span<const std::shared_ptr<const RecurrentState::Snapshot>> states);

  /// The largest number of tokens, at most `tokens`, to which truncate can go back: `tokens` itself unless a layer
  /// is recurrent.
  int64_t floor(int64_t tokens) const;
  /// Keeps the first `tokens` tokens, for which floor(tokens) = tokens must hold, in states of methods, too.
  void truncate(int64_t tokens);

  /// Moves the whole sequence so that its first token has this position. Throws Error, changing nothing, if a token
  /// would get a position outside [0, kPositionLimit).
  void move_to(int64_t position);
  /// Masks tokens [begin, end) for all later queries of all attention layers. Keys and values stay in their pages.
  void mask(int64_t begin, int64_t end);

  /// Whose state: a sequence has one of each.
  enum class StateOf { kSelector, kEvictor };
  /// Replaces the state by another, or by none.
  void set_state(StateOf owner, std::unique_ptr<SequenceState> state) {
    states_[static_cast<size_t>(owner)] = std::move(state);
  }
  /// null: none
  SequenceState* state(StateOf owner) const { return states_[static_cast<size_t>(owner)].get(); }

  /// Bytes held by layers, those shared with forks included.
  size_t bytes() const;

 private:
  void index_layers();
  void open_layers(const OpenedTokens& tokens);
  std::vector<int64_t> plan_checkpoints(int64_t begin, int64_t end) const;
  size_t checkpoint_bytes() const;
  void keep_checkpoints(std::span<const int64_t> kept) noexcept;

  std::vector<std::unique_ptr<LayerState>> layers_;
  std::vector<PagedKv*> paged_;             // [layers]
  std::vector<RecurrentState*> recurrent_;  // [layers]
  CheckpointPolicy checkpoints_;
  BudgetCharge checkpoint_charge_;
  std::vector<int64_t> wanted_checkpoints_;  // after the open pass
  TokenList ids_;
  int64_t tokens_ = 0, next_position_ = 0;
  int64_t committed_ = 0;
  const DraftTree* draft_ = nullptr;
  std::vector<int32_t> draft_ids_;
  std::array<std::unique_ptr<SequenceState>, 2> states_;
};

}  // namespace fathom
