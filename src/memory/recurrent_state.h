#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/aligned.h"
#include "memory/layer_state.h"
#include "memory/memory_budget.h"

namespace fathom {

/// The layout of a recurrent state: its float32 tensors, such as the last inputs of a convolution and the state of
/// a scan. All are zero before the first token.
struct RecurrentLayout {
  struct Tensor {
    std::string name;
    int64_t size = 0;  // floats
  };
  std::vector<Tensor> tensors;

  /// Number of floats of all tensors, each padded to whole cache lines.
  int64_t floats() const;
  /// Index of the first float of a tensor.
  int64_t offset(size_t tensor) const;
};

/// The state of a recurrence after the newest token, and checkpoints: its states after some earlier tokens. A state
/// is written once and then shared, so a fork or a checkpoint costs one pointer.
class RecurrentState final : public LayerState {
 public:
  /// budget: charged for states; null: no limit.
  RecurrentState(std::shared_ptr<const RecurrentLayout> layout, std::shared_ptr<MemoryBudget> budget);

  std::unique_ptr<LayerState> fork() const override;
  /// Allocates a state for each stop. At commit, the state before the pass and the states of all stops but the last
  /// become checkpoints, until keep_checkpoints discards them. Throws Error (out of memory).
  void open(const OpenedTokens& tokens) override;
  void commit() noexcept override;
  void accept(int64_t count) override;
  int64_t floor(int64_t tokens) const override;
  void truncate(int64_t tokens) override;
  size_t bytes() const override;
  RecurrentState* recurrent() override { return this; }

  const RecurrentLayout& layout() const { return *layout_; }
  /// Number of committed tokens.
  int64_t tokens() const { return tokens_; }

  /// For the mixer: the end of each segment of the opened rows, ascending.
  std::span<const int64_t> stops() const { return stops_; }
  /// Returns the tensor before the first row of a segment; null: zeros.
  const float* before(size_t segment, size_t tensor) const;
  /// Returns the tensor after the last row of a segment, uninitialised, for writing.
  float* after(size_t segment, size_t tensor) { return opened_[segment]->floats.data() + layout_->offset(tensor); }

  /// Fills all opened states with `numbers`, repeated. For benchmarks.
  void fill(std::span<const float> numbers);

  /// Returns the number of tokens of each checkpoint, ascending.
  std::vector<int64_t> checkpoints() const;
  /// Discards the checkpoints that are not in `kept` (numbers of tokens, ascending).
  void keep_checkpoints(std::span<const int64_t> kept) noexcept;
  /// Size of one state in bytes.
  size_t state_bytes() const { return layout_->floats() * sizeof(float); }

  /// An immutable, shared state.
  struct Snapshot {
    explicit Snapshot(std::shared_ptr<MemoryBudget> budget, size_t count)
        : charge(std::move(budget), count * sizeof(float)), floats(count) {}
    BudgetCharge charge;
    AlignedBuffer<float> floats;
  };
  /// Returns the state after `tokens` tokens: the newest state or a checkpoint; null: zeros. Throws Error if it was
  /// not stored.
  std::shared_ptr<const Snapshot> snapshot(int64_t tokens) const;
  /// Returns a state with these numbers, [layout().floats()]. Throws Error (out of memory).
  std::shared_ptr<const Snapshot> make_snapshot(std::span<const float> floats) const;
  /// Sets the state after `tokens` tokens, which another sequence has computed. The current state becomes a
  /// checkpoint.
  void advance(int64_t tokens, std::shared_ptr<const Snapshot> state);
  /// Replaces the state by one after `tokens` tokens and discards checkpoints that are not before it.
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
  std::shared_ptr<const Snapshot> committed_;      // state after them; null: zeros
  std::vector<Checkpoint> checkpoints_;            // ascending
  std::vector<int64_t> stops_;                     // of the open tokens
  std::vector<std::shared_ptr<Snapshot>> opened_;  // after each stop
  std::shared_ptr<Snapshot> spare_;                // a discarded state, kept for reuse
};

/// Returns which of `candidates` (numbers of tokens, ascending, below `end`) must be kept as checkpoints so that,
/// as far as the candidates allow, a rewind of n tokens from `end` re-reads at most max(spacing, n) tokens. The
/// state after 0 tokens needs no checkpoint. The number of checkpoints grows with the logarithm of `end`.
std::vector<int64_t> needed_checkpoints(std::span<const int64_t> candidates, int64_t end, int64_t spacing);

}  // namespace fathom
