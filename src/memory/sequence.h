#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "kernels/adapter_matmul.h"
#include "memory/layer_state.h"
#include "memory/paged_kv.h"
#include "memory/recurrent_state.h"
#include "memory/sequence_state.h"

namespace fathom {

/// The token ids of a sequence. Copies share all full blocks of 1,024 ids and copy only the last ones.
class TokenList {
 public:
  int64_t size() const { return static_cast<int64_t>(blocks_.size() * kBlock + tail_.size()); }
  int32_t operator[](int64_t i) const {
    const auto block = static_cast<size_t>(i) / kBlock;
    return block < blocks_.size() ? (*blocks_[block])[i % kBlock] : tail_[i % kBlock];
  }
  /// Appends ids. If it throws std::bad_alloc, truncating to the size before allocates nothing.
  void append(std::span<const int32_t> ids);
  /// Keeps the first n ids.
  void truncate(int64_t n);
  /// Returns ids [begin, end).
  std::vector<int32_t> copy(int64_t begin, int64_t end) const;
  size_t bytes() const { return blocks_.size() * sizeof(blocks_[0]) + tail_.size() * sizeof(int32_t); }

 private:
  static constexpr size_t kBlock = 1024;  // ids per block
  void close_tail();

  std::vector<std::shared_ptr<const std::vector<int32_t>>> blocks_;  // full blocks
  std::vector<int32_t> tail_;                                        // at most one block
};

/// How many checkpoints of recurrent states a sequence keeps, so that a rewind re-reads few tokens.
struct CheckpointPolicy {
  int64_t spacing = 64;                  // a rewind of n tokens re-reads at most max(spacing, n) tokens
  std::shared_ptr<MemoryBudget> budget;  // for the checkpoints of all sequences; null: no limit
};

/// Tokens [begin, end) of a sequence: contexts that were read alone, whose share of attention is corrected
/// (ParallelForm).
struct ParallelContexts {
  int64_t begin = 0, end = 0;
  float temperature = 1;  // T
  float scale = 1;        // S
};

/// One sequence of tokens: their ids, one LayerState per layer, and the states of methods. A forward pass opens
/// tokens, writes them layer by layer, and commits them.
class Sequence {
 public:
  /// adapters: see adapters(). budget: charged for the states of methods; null: no limit.
  explicit Sequence(std::vector<std::unique_ptr<LayerState>> layers, CheckpointPolicy checkpoints = {},
                    std::vector<ScaledAdapter> adapters = {}, std::shared_ptr<MemoryBudget> budget = nullptr);
  Sequence(Sequence&& other) noexcept = default;
  Sequence& operator=(Sequence&& other) noexcept = default;

  /// Returns a copy that shares memory with this sequence until either side writes to it. No tokens may be open.
  /// Throws std::bad_alloc, or what fork() of a method's state throws.
  Sequence fork() const;

  /// The adapters with which all its tokens are read. They never change, because stored keys, values and states
  /// depend on them; forks have the same ones.
  std::span<const ScaledAdapter> adapters() const { return adapters_; }
  int layers() const { return static_cast<int>(layers_.size()); }
  LayerState& layer(int i) { return *layers_[i]; }
  /// Returns the paged keys and values of a layer, or null if it has none.
  PagedKv* paged(int i) { return paged_[i]; }
  const PagedKv* paged(int i) const { return paged_[i]; }
  /// Returns the paged keys and values of a layer, which must have some.
  PagedKv& kv(int i) { return *paged_[i]; }
  const PagedKv& kv(int i) const { return *paged_[i]; }
  /// Returns the recurrent state of a layer, or null if it has none.
  RecurrentState* recurrent(int i) { return recurrent_[i]; }
  const RecurrentState* recurrent(int i) const { return recurrent_[i]; }
  bool has_recurrent_layers() const;
  /// Returns the largest number of key/value heads of any layer.
  int max_heads() const;

  /// Number of tokens, including those of an open pass.
  int64_t tokens() const { return tokens_; }
  /// The ids of the tokens; −1 for a token that was read as an embedding.
  const TokenList& ids() const { return ids_; }
  /// The position after the last token.
  int64_t next_position() const { return next_position_; }
  /// The position of the first token; 0 if there is none, or no layer with attention.
  int64_t first_position() const;
  /// One past the largest position. Rotary tables must cover all positions below it.
  int64_t end_position() const;

  /// Opens room for tokens in all layers. ids: one per position, or empty for embeddings. keep_states: keeps the
  /// state of recurrent layers after each token, for accept(). Charges the states of methods as they are now.
  /// Throws Error or std::bad_alloc, changing nothing, for a position outside [0, kPositionLimit) and when memory
  /// is exhausted.
  void open(std::span<const int64_t> positions, std::span<const int32_t> ids = {}, bool keep_states = false);
  /// Keeps the opened tokens, which all layers have written.
  void commit() noexcept;
  /// Keeps the first `count` of the tokens opened with keep_states, which all layers have written, and discards the
  /// others. Does not change the states of methods. Throws std::bad_alloc, discarding all opened tokens.
  void accept(int64_t count);
  /// Discards the opened tokens, also in the states of methods.
  void abandon() noexcept;
  /// Returns whether tokens are open.
  bool is_open() const { return committed_ != tokens_; }
  /// Number of tokens without those of an open pass.
  int64_t committed() const { return committed_; }

  /// Appends 64 tokens that another sequence has read; both share their pages from now on. pages: [layers][heads];
  /// ids: [64]. The number of tokens must be a multiple of 64. If the sequence has recurrent layers, call
  /// adopt_states after the last call of adopt. Throws Error or std::bad_alloc, changing nothing.
  void adopt(std::span<const std::vector<PageId>> pages, std::span<const int32_t> ids);
  /// Sets the states of recurrent layers after the newest token. states: [layers], null for other layers.
  void adopt_states(std::span<const std::shared_ptr<const RecurrentState::Snapshot>> states);

  /// Appends tokens [begin, end) of another sequence of the same engine, which has no recurrent layers and at least
  /// as many layers; both share their pages from now on. The first of them gets this position, and the others keep
  /// their distances to it. `begin` must be `from.page_begin(begin)`. Throws Error or std::bad_alloc, changing
  /// nothing.
  void adopt(const Sequence& from, int64_t begin, int64_t end, int64_t position);
  /// Returns the first token at or after `token` with which a page begins in all tables; tokens() if there is none.
  int64_t page_begin(int64_t token) const;
  /// Returns whether a table was compacted or has no page for some tokens, because they were evicted.
  bool is_evicted() const;
  /// Takes over the tokens that all layers of an empty sequence were given by PagedKv::restore and
  /// RecurrentState::advance.
  void restore(std::span<const int32_t> ids);

  /// Returns the largest number of tokens, at most `tokens`, to which truncate can shorten the sequence: `tokens`
  /// itself unless a layer is recurrent.
  int64_t floor(int64_t tokens) const;
  /// Keeps the first `tokens` tokens, also in the states of methods; floor(tokens) = tokens must hold. Throws Error
  /// if `tokens` is negative or more than tokens().
  void truncate(int64_t tokens);

  /// Shifts the positions of all tokens so that the first one has this position. Throws Error, changing nothing, if
  /// a position would be outside [0, kPositionLimit).
  void move_to(int64_t position);
  /// Masks tokens [begin, end) for all later queries in all attention layers. Keys and values are not removed.
  void mask(int64_t begin, int64_t end);

  /// Corrects the attention of all later tokens to contexts that were read alone. A truncation that shortens them
  /// ends this.
  void set_parallel(const ParallelContexts& contexts) { parallel_ = contexts; }
  /// Returns the contexts of set_parallel(), or null.
  const ParallelContexts* parallel() const { return parallel_ ? &*parallel_ : nullptr; }

  /// The owner of a method state. A sequence has at most one state per owner.
  enum class StateOf { kSelector, kEvictor };
  /// Replaces the state; null removes it.
  void set_state(StateOf owner, std::unique_ptr<SequenceState> state) {
    states_[static_cast<size_t>(owner)] = std::move(state);
  }
  /// Returns the state, or null if there is none.
  SequenceState* state(StateOf owner) const { return states_[static_cast<size_t>(owner)].get(); }

  /// Bytes held by ids and layers, including bytes shared with forks.
  size_t bytes() const;

 private:
  void index_layers();
  void charge_states();
  void open_layers(const OpenedTokens& tokens);
  void discard_adopted();
  std::vector<int64_t> plan_checkpoints(int64_t begin, int64_t end) const;
  size_t checkpoint_bytes() const;
  void keep_checkpoints(std::span<const int64_t> kept) noexcept;

  std::vector<std::unique_ptr<LayerState>> layers_;
  std::vector<PagedKv*> paged_;             // [layers]
  std::vector<RecurrentState*> recurrent_;  // [layers]
  CheckpointPolicy checkpoints_;
  std::vector<ScaledAdapter> adapters_;
  BudgetCharge checkpoint_charge_;
  std::shared_ptr<MemoryBudget> budget_;
  BudgetCharge state_charge_;
  std::vector<int64_t> planned_checkpoints_;  // to keep at commit of the open pass
  TokenList ids_;
  int64_t tokens_ = 0, next_position_ = 0;
  int64_t committed_ = 0;
  std::optional<ParallelContexts> parallel_;
  std::array<std::unique_ptr<SequenceState>, 2> states_;
};

}  // namespace fathom
