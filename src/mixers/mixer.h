#pragma once

#include <memory>
#include <span>
#include <vector>

#include "attend/attention.h"
#include "kernels/adapter_matmul.h"
#include "kernels/matmul.h"
#include "memory/page_pool.h"
#include "memory/sequence.h"

namespace fathom {

/// The methods that the user chose for a sequence. They do not include the sliding window of the model, which is a
/// mask applied after selection, like the causal mask.
struct AttendPolicy {
  const Selector* selector = nullptr;
  const AttendListener* listener = nullptr;  // null: none
  AttentionWatcher* watcher = nullptr;       // null: none
};

/// The queries of a draft's rows, stored until Engine::accept passes those of the accepted nodes to selectors and
/// listeners.
struct DraftQueries {
  struct Layer {
    int heads = 0;
    float scale = 1;
    const AttentionForm* form = nullptr;
    std::vector<float> queries;  // [rows, heads, key_dim]
  };
  std::vector<Layer> layers;  // [layers]; `queries` is empty for layers without attention
};

/// The rows of one sequence in a batch: its newest opened tokens.
struct SequenceRows {
  Sequence* sequence = nullptr;
  AttendPolicy policy;
  int64_t first_row = 0;  // in the batch
  int64_t rows = 0;
  const int64_t* positions = nullptr;  // [rows]
  const float* embeddings = nullptr;   // [rows, width] instead of token ids; null: ids
  /// Whether the rows belong to a draft. Each row then gets the results that it would get in a pass of its own, bit
  /// by bit. Listeners do not receive its queries.
  bool draft = false;
  /// Rows of the batch, ascending, that are opened tokens of this sequence before its own rows. They belong to
  /// another member, a draft that shares the beginning of its path with this one, and are computed there.
  std::span<const int64_t> shared_rows{};
  DraftQueries* draft_queries = nullptr;  // filled for a draft; null: not stored
  int64_t draft_row = 0;                  // index of the first row in draft_queries
};

/// Returns the number of rows of the leading sequences that are drafts or have at most kMatvecRows rows
/// (ActivationBuffer::step_rows).
int64_t step_rows(std::span<const SequenceRows> sequences);

/// Working memory of recurrences.
struct RecurrenceBuffers {
  /// A block of rows of a chunked scan.
  struct Block {
    size_t segment = 0;     // index in RecurrentState::stops
    int64_t first_row = 0;  // in the batch
    int64_t rows = 0;
    bool by_products = false;  // scanned by matrix products instead of row by row
  };
  AlignedBuffer<float> projected;     // [rows, columns of the input projection]
  ActivationBuffer convolved;         // [rows, channels]
  AlignedBuffer<float> coefficients;  // [rows, rank + 2·state] low-rank time steps, b, c
  ActivationBuffer low_rank;          // [rows, rank] low-rank time steps
  AlignedBuffer<float> time_steps;    // [rows, heads or channels]
  AlignedBuffer<float> products;      // [groups, rows, kSsdBlock] c·b
  std::vector<Block> blocks;          // of all sequences, ordered by sequence
  std::vector<size_t> first_block;    // [sequences + 1] index in `blocks`
  ActivationBuffer gated;             // [rows, inner] input of the output projection
};

/// Thread pool, kernels and working memory of a forward pass, reused between passes.
struct Workspace {
  Workspace(ThreadPool& threads, const Kernels& table) : pool(threads), kernels(table), attention(threads, table) {}
  ThreadPool& pool;
  const Kernels& kernels;
  /// The rows of the current pass, or of the current logits, that have adapters; set by Network::forward and by the
  /// caller of Network::logits.
  std::vector<AdaptedRows> adapted_rows;
  AlignedBuffer<float> low_rank;  // [rows, rank] products with the first factor of adapters
  Attention attention;
  std::vector<AttentionInput> attention_inputs;  // one per sequence
  AlignedBuffer<float> hidden;                   // [rows, width]
  AlignedBuffer<float> update;                   // [rows, width] output of a mixer or feed-forward
  AlignedBuffer<float> branch;                   // [rows, width] output of a further branch of a block
  ActivationBuffer normed;                       // [rows, width]
  AlignedBuffer<float> q, k, v;                  // [rows, heads · dim]
  ActivationBuffer logit_rows;                   // [rows, width] rows for which logits are computed
  ActivationBuffer attended;                     // [rows, heads · value_dim]
  ActivationBuffer inner;                        // [rows, ffn width]
  AlignedBuffer<float> up;                       // [rows, ffn width]
  ActivationBuffer routed;                       // [rows · experts used, width] grouped by expert
  RecurrenceBuffers recurrence;
  AlignedBuffer<float> scratch;  // used within one mixer or feed-forward
};

/// Parameters for the layer states of a new sequence.
struct StateOptions {
  PagePool& pages;
  PageFormat format;
  int page_tokens = kPageTokens;  // tokens per page
  struct Rotations {
    std::shared_ptr<PositionRotations> table;
    float score_factor = 1;
  };
  std::span<const Rotations> rotations;  // one per ModelConfig::rotaries(), then one without rotation
};

/// Mixes information between the tokens of each sequence of a batch: attention or a recurrence. A mixer holds
/// immutable weights; its state is in the sequences.
class Mixer {
 public:
  virtual ~Mixer() = default;
  /// Returns the state of a new sequence for this mixer's layer.
  virtual std::unique_ptr<LayerState> new_state(const StateOptions& options) const = 0;
  /// Computes y from x, both [rows, width]; x is normalised. The rows of a sequence are consecutive tokens or a
  /// draft. The split of a sequence into calls changes results only by rounding.
  virtual void forward(Workspace& work, std::span<const SequenceRows> sequences, ActivationBuffer& x,
                       float* y) const = 0;
  /// Returns the output projection of the heads, [width, heads·value_dim], or null if the mixer has none.
  virtual const Matrix* output_projection() const { return nullptr; }
  /// Sets the attention shape of the layer, for selectors and evictors. A mixer without attention sets nothing.
  virtual void describe(AttendLayer& layer) const { static_cast<void>(layer); }
};

}  // namespace fathom
