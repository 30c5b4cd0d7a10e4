#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/aligned.h"
#include "memory/layer_state.h"
#include "memory/memory_budget.h"

namespace fathom {

/// The tensors of float32 of which a recurrence's state is made, such as a convolution's last inputs and the state
/// of its scan. All are zero before the first token.
struct RecurrentLayout {
  struct Tensor {
    std::string name;
    int64_t size = 0;  // floats
  };
  std::vector<Tensor> tensors;

  /// Floats of all tensors, each padded to a cache line.
  int64_t floats() const;
  /// Where a tensor begins.
  int64_t offset(size_t tensor) const;
};

/// The state of a recurrence after the newest token, and checkpoints of it after earlier ones. States are written
/// once and then shared: forks and checkpoints cost pointers.
class RecurrentState final : public LayerState {
 public:
  /// budget: what states are taken from; null: no limit.
  RecurrentState(std::shared_ptr<const RecurrentLayout> layout, std::shared_ptr<MemoryBudget> budget);

  std::unique_ptr<LayerState> fork() const override;
  /// Makes a state for each stop. The state before them becomes a checkpoint; keep_checkpoints drops it.
  void open(const OpenedTokens& tokens) override;
  void commit() noexcept override;
  /// The draft must be a chain.
  void accept(std::span<const int> path) override;
  int64_t floor(int64_t tokens) const override;
  void truncate(int64_t tokens) override;
  size_t bytes() const override;
  RecurrentState* recurrent() override { return this; }

  const RecurrentLayout& layout() const { return *layout_; }
  int64_t tokens() const { return tokens_; }

  /// For the mixer: the segments of the opened rows, which end at these rows.
  std::span<const int64_t> stops() const { return stops_; }
  /// The tensor before the segment's first row; null: zeros.
  const float* before(size_t segment, size_t tensor) const;
  /// The tensor after the segment's last row, to be written: uninitialised.
  float* after(size_t segment, size_t tensor) { return opened_[segment]->floats.data() + layout_->offset(tensor); }

  /// Writes numbers, over and over, to all that is open: for measuring.
  void fill(std::span<const float> numbers);

  /// The numbers of tokens of the checkpoints, ascending.
  std::vector<int64_t> checkpoints() const;
  /// Drops the checkpoints that are not among `kept` (ascending).
  void keep_checkpoints(std::span<const int64_t> kept) noexcept;
  /// Bytes of one state.
  size_t state_bytes() const { return layout_->floats() * sizeof(float); }

  /// The state after the newest token, or after a checkpoint: shared, never written again. null: zeros.
  struct Snapshot {
    explicit Snapshot(std::shared_ptr<MemoryBudget> budget, size_t count)
        : charge(std::move(budget), count * sizeof(float)), floats(count) {}
    BudgetCharge charge;
    AlignedBuffer<float> floats;
  };
  std::shared_ptr<const Snapshot> snapshot(int64_t tokens) const;
  /// The state after more tokens, which another sequence has read; the present one becomes a checkpoint.
  void advance(int64_t tokens, std::shared_ptr<const Snapshot> state);
  /// Replaces all by a state after `tokens` tokens.
  void restore(int64_t tokens, std::shared_ptr<const Snapshot> state);

 private:
  struct Checkpoint {
    int64_t tokens;
    std::shared_ptr<const Snapshot> state;
  };
  const Snapshot* state_before(size_t segment) const {
    return segment == 0 ? committed_.get() : opened_[segment - 1].get();
  }

  std::shared_ptr<const RecurrentLayout> layout_;
  std::shared_ptr<MemoryBudget> budget_;
  int64_t tokens_ = 0;                             // committed
  std::shared_ptr<const Snapshot> committed_;      // null: zeros
  std::vector<Checkpoint> checkpoints_;            // ascending
  std::vector<int64_t> stops_;                     // of what is open
  std::vector<std::shared_ptr<Snapshot>> opened_;  // after each stop
  std::shared_ptr<Snapshot> spare_;                // memory of a state that nobody holds any more
};

/// Where checkpoints lie: which of `candidates` (numbers of tokens, ascending, below `end`) must be kept so that a
/// rewind of n tokens from `end` reads at most max(spacing, n) tokens again. 0 needs no checkpoint.
std::vector<int64_t> needed_checkpoints(std::span<const int64_t> candidates, int64_t end, int64_t spacing);

}  // namespace fathom
