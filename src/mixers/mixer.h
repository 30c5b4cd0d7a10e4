#pragma once

#include <memory>
#include <span>
#include <vector>

#include "attend/attention.h"
#include "kernels/matmul.h"
#include "memory/page_pool.h"
#include "memory/sequence.h"

namespace fathom {

/// What the user chose for a sequence's attention. The model's own window is a mask after selection, like
/// causality.
struct AttendPolicy {
  const Selector* selector = nullptr;
  const AttendListener* listener = nullptr;  // null: none
  AttentionWatcher* watcher = nullptr;       // null: none
};

/// Queries of a draft, kept until it is known which of its tokens stay: then selectors plan and listeners listen.
struct DraftQueries {
  struct Layer {
    int heads = 0;
    float scale = 1;
    const AttentionForm* form = nullptr;
    std::vector<float> queries;  // [nodes, heads, key_dim]
  };
  std::vector<Layer> layers;  // of the model; without queries for layers that have no attention
};

/// The rows that one sequence has in a batch: its newest tokens, for which it has been opened, or a draft.
struct SequenceRows {
  Sequence* sequence = nullptr;
  AttendPolicy policy;
  int64_t first_row = 0;  // in the batch
  int64_t rows = 0;
  const int64_t* positions = nullptr;     // [rows]
  const float* embeddings = nullptr;      // [rows, width] in place of token ids; null: ids
  DraftQueries* draft_queries = nullptr;  // filled for a draft; null: not wanted
};

/// Working memory of recurrences.
struct RecurrenceBuffers {
  /// Rows of one block of a chunked scan.
  struct Block {
    size_t segment = 0;     // of the state (RecurrentState::stops)
    int64_t first_row = 0;  // in the batch
    int64_t rows = 0;
    bool by_products = false;  // scanned by matrix products, not row by row
  };
  AlignedBuffer<float> projected;     // [rows, columns of the input projection]
  ActivationBuffer convolved;         // [rows, channels]
  AlignedBuffer<float> coefficients;  // [rows, rank + 2·state] of time steps and of the scan, before norms
  ActivationBuffer low_rank;          // [rows, rank] of time steps
  AlignedBuffer<float> time_steps;    // [rows, heads or channels]
  AlignedBuffer<float> products;      // [groups, rows, kSsdBlock]
  std::vector<Block> blocks;          // of all sequences, one sequence after the other
  std::vector<size_t> first_block;    // [sequences + 1]
  ActivationBuffer gated;             // [rows, inner] what the output projection reads
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
  AlignedBuffer<float> branch;                   // [rows, width] of a further branch of a block
  ActivationBuffer normed;                       // [rows, width]
  AlignedBuffer<float> q, k, v;                  // [rows, heads · dim]
  ActivationBuffer chosen;                       // [rows, width] of which logits are made
  ActivationBuffer attended;                     // [rows, heads · value_dim]
  ActivationBuffer inner;                        // [rows, ffn width]
  AlignedBuffer<float> up;                       // [rows, ffn width]
  ActivationBuffer routed;                       // [rows · experts used, width] grouped by expert
  RecurrenceBuffers recurrence;
  AlignedBuffer<float> scratch;  // of one mixer or feed-forward
};

/// What mixers make the states of a new sequence of.
struct StateOptions {
  PagePool& pages;
  PageFormat format;
  int page_tokens = kPageTokens;
  struct Rotations {
    std::shared_ptr<PositionRotations> table;
    float score_factor = 1;
  };
  std::span<const Rotations> rotations;  // of ModelConfig::rotaries(), and last those that rotate nothing
};

/// Mixes information along the sequences of a batch: attention, or a recurrence. Immutable weights; the state is in
/// the sequences.
class Mixer {
 public:
  virtual ~Mixer() = default;
  /// The state of a new sequence in this mixer's layer.
  virtual std::unique_ptr<LayerState> new_state(const StateOptions& options) const = 0;
  /// x: [rows, width], normed; y: [rows, width]. Rows of a sequence are consecutive tokens in order, or a draft.
  /// May be called with any split of a sequence into calls: the result is the same up to rounding.
  virtual void forward(Workspace& work, std::span<const SequenceRows> sequences, ActivationBuffer& x,
                       float* y) const = 0;
  /// The projection of the values that heads have read to the width: [width, heads·value_dim]; null: it has none.
  virtual const Matrix* output_projection() const { return nullptr; }
  /// Adds the attention shape of the layer, for selectors and evictors.
  virtual void describe(AttendLayer& layer) const { static_cast<void>(layer); }
};

}  // namespace fathom
