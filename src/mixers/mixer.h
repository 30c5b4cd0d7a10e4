#pragma once

#include <span>
#include <vector>

#include "attend/attention.h"
#include "kernels/matmul.h"
#include "memory/memory.h"

namespace fathom {

/// The rows that one sequence has in a batch: its newest tokens, for which its memory has been opened already.
struct SequenceRows {
  Memory* memory = nullptr;
  const PlaceRotations* rotations = nullptr;
  float score_factor = 1;                    // of the rotary scaling
  const Selector* selector = nullptr;        // of the session; the model's own window applies, too
  const AttendListener* listener = nullptr;  // null: none
  AttentionWatcher* watcher = nullptr;       // null: none
  int64_t first_row = 0;                     // in the batch
  int64_t rows = 0;
  const int64_t* positions = nullptr;  // [rows]
};

/// Threads, kernels and working memory of a forward pass; reused from call to call.
struct Workspace {
  Workspace(ThreadPool& threads, const Kernels& table) : pool(threads), kernels(table), attention(threads, table) {}
  ThreadPool& pool;
  const Kernels& kernels;
  Attention attention;
  std::vector<AttentionInput> attention_inputs;  // one per sequence
  AlignedBuffer<float> hidden;                   // [rows, width]
  AlignedBuffer<float> update;                   // [rows, width] what a mixer or feed-forward adds
  ActivationBuffer normed;                       // [rows, width]
  AlignedBuffer<float> q, k, v;                  // [rows, heads · dim]
  ActivationBuffer chosen;                       // [rows, width] of which logits are made
  ActivationBuffer attended;                     // [rows, heads · value_dim]
  ActivationBuffer inner;                        // [rows, ffn width]
  AlignedBuffer<float> up;                       // [rows, ffn width]
};

/// Mixes information along the sequences of a batch: attention, or (later) a recurrence. Immutable weights; state
/// is in the sequences.
class Mixer {
 public:
  virtual ~Mixer() = default;
  /// x: [rows, width], normed; y: [rows, width]. Rows of a sequence are consecutive tokens in order. May be called
  /// with any split of a sequence into calls: the result is the same up to rounding.
  virtual void forward(Workspace& work, std::span<const SequenceRows> sequences, ActivationBuffer& x,
                       float* y) const = 0;
  /// What brings the values that heads have read back to the width: [width, heads·value_dim]; null: it has none.
  virtual const Matrix* output_projection() const { return nullptr; }
};

}  // namespace fathom
