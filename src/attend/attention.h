#pragma once

#include <span>
#include <vector>

#include "attend/attention_form.h"
#include "attend/listener.h"
#include "attend/selector.h"
#include "base/thread_pool.h"

namespace fathom {

/// What a block of queries attended to.
struct AttendedBlock {
  const PagedKv& kv;
  const QueryBlock& block;
  const Selection& selection;  // causality and window not yet applied
  const float* lse;            // [rows, group] log Σ of the weights
  const AttentionForm& form;
  WeightFunction weights{};

  /// The tokens of a selected page that row `row` attended to.
  uint64_t mask(const SelectedPage& page, int row) const;
  /// The share of the weights of `query` (of rows · group) that a key with this score has.
  double share(int64_t query, double score) const;
};

/// Is shown what queries attended to; rows of drafts are not shown. Thread-safe.
class AttentionWatcher {
 public:
  virtual ~AttentionWatcher() = default;
  virtual bool watches(int layer) const = 0;
  virtual void observe(const AttendedBlock& attended) = 0;
};

/// Attention of the newest tokens of one sequence in one layer, or of the nodes of its open draft.
struct AttentionInput {
  /// Keys and values of the rows have been written. The layer's window applies whatever is selected: a row attends
  /// to the newest `window` tokens at most, itself included. Rotations are reserved up to kv->end_position().
  const PagedKv* kv = nullptr;
  const Sequence* sequence = nullptr;  // of the layer
  int layer = 0;
  int heads = 0;                       // query heads, a multiple of the key/value heads
  int64_t rows = 0;                    // the newest tokens of the sequence, or all nodes of the draft
  const int64_t* positions = nullptr;  // [rows]
  const float* queries =
      nullptr;  // row i at queries + i·query_stride: [heads, key_dim], unrotated, rotary pairs side by side
  int64_t query_stride = 0;
  const AttentionForm* form = &softmax_form();
  float scale = 1;  // multiplies scores
  const Selector* selector = nullptr;
  SequenceState* selector_state = nullptr;   // of the sequence; null: none
  const AttendListener* listener = nullptr;  // null: none
  SequenceState* listener_state = nullptr;
  AttentionWatcher* watcher = nullptr;  // null: none
  float* out = nullptr;                 // [rows, heads, value_dim]
  float* lse = nullptr;                 // null, or [rows, heads]

  int group() const { return heads / kv->heads(); }
  /// The sequence index of a row.
  int64_t token(int64_t row) const {
    return kv->draft() ? kv->tokens() + kv->draft()->depth(static_cast<int>(row)) : kv->tokens() - rows + row;
  }
  /// All queries, for selectors and listeners.
  LayerQueries layer_queries(const Kernels& kernels) const;
};

/// The one attention of the engine: select, then attend exactly. Keeps working memory between calls.
class Attention {
 public:
  Attention(ThreadPool& pool, const Kernels& kernels) : pool_(pool), kernels_(kernels), scratch_(pool.threads()) {}

  /// Of several sequences at once, each with its own number of rows and pages: nothing is padded. Results depend
  /// neither on the number of threads nor on what else is in the batch. Selectors plan and listeners listen, unless
  /// the rows are a draft.
  void run(std::span<const AttentionInput> inputs);
  const AttentionCount& count() const { return count_; }

 private:
  struct Rows {  // some rows of one key/value head
    int head;
    int64_t first;
    int count;
  };
  struct Task {  // rows to attend with, or only to prepare because their pages are shared out among parts
    const AttentionInput* input;
    Rows rows;
    int64_t prepared;  // index in prepared_; −1: attend
  };
  struct Part {  // pages [begin, end) of a prepared block, and where its partial results go
    const AttentionInput* input;
    AttentionBlock* block;
    int64_t begin, end;
    size_t out, lse;  // in partial_out_ and partial_lse_
  };
  enum class Pass { kFirst, kLast };

  void plan(std::span<const AttentionInput> inputs);
  void attend(std::span<const AttentionInput> inputs);
  void prepare(const AttentionInput& input, const Rows& rows, AttentionBlock& block) const;
  QueryBlock query_block(const AttentionInput& input, const AttentionBlock& block) const;
  void show(const AttentionInput& input, const AttentionBlock& block, const float* lse) const;
  void rotate_queries(const AttentionInput& input, AttentionBlock& block) const;
  void read_pages(AttentionBlock& block) const;
  void read_draft(AttentionBlock& block) const;
  void store(const AttentionInput& input, const AttentionBlock& block, float* out, float* lse) const;
  void list_tasks(std::span<const AttentionInput> inputs);
  void attend_block(const Task& task, int thread);
  void list_parts();
  void attend_parts(Pass pass);
  void join_parts(Pass pass);
  void add(AttentionCount& count);

  ThreadPool& pool_;
  const Kernels& kernels_;
  std::vector<AttentionScratch> scratch_;  // one per thread
  std::vector<Task> tasks_;
  std::vector<AttentionBlock> prepared_;  // kept for their working memory: the first prepared_count_ count
  size_t prepared_count_ = 0;
  std::vector<Part> parts_;
  std::vector<float> partial_out_, partial_lse_;
  AttentionCount count_;
};

}  // namespace fathom
