#pragma once

#include <deque>
#include <span>
#include <vector>

#include "attend/attention_form.h"
#include "attend/forms/parallel_form.h"
#include "attend/listener.h"
#include "attend/selector.h"
#include "base/thread_pool.h"

namespace fathom {

/// The result of attention for one block of queries, for watchers.
struct AttendedBlock {
  const PagedKv& kv;
  const QueryBlock& block;
  const Selection& selection;  // before causality and the model's window are applied
  const float* lse;            // [rows, group] logarithm of the sum of the weights
  const AttentionForm& form;
  WeightFunction weights{};

  /// Returns the tokens of a selected page that row `row` attended to.
  uint64_t mask(const SelectedPage& page, int row) const;
  /// Returns the share of a query's total weight that a key with this score gets. query: index in [0, rows ·
  /// group).
  double share(int64_t query, double score) const;
};

/// Observes the attention of each block of queries. Implementations are thread-safe.
class AttentionWatcher {
 public:
  virtual ~AttentionWatcher() = default;
  /// Returns whether the layer is observed.
  virtual bool watches(int layer) const = 0;
  /// Called for each block of an observed layer.
  virtual void observe(const AttendedBlock& attended) = 0;
};

/// One attention of the newest tokens of a sequence in one layer.
struct AttentionInput {
  /// The keys and values of the layer, including those of the rows. The layer's window limits every selection: a
  /// row attends to at most the newest `window` tokens, including itself. Rotations must be reserved up to
  /// kv->end_position().
  const PagedKv* kv = nullptr;
  const Sequence* sequence = nullptr;  // owns kv
  int layer = 0;
  int heads = 0;                       // query heads, a multiple of the key/value heads
  int64_t rows = 0;                    // the newest tokens of the sequence
  const int64_t* positions = nullptr;  // [rows]
  /// Row i at queries + i·query_stride: [heads, key_dim], unrotated, rotary pairs adjacent.
  const float* queries = nullptr;
  int64_t query_stride = 0;
  const AttentionForm* form = &softmax_form();
  float scale = 1;  // multiplies scores
  const Selector* selector = nullptr;
  SequenceState* selector_state = nullptr;   // of this sequence; null: none
  const AttendListener* listener = nullptr;  // null: none
  SequenceState* listener_state = nullptr;
  AttentionWatcher* watcher = nullptr;  // null: none
  float* out = nullptr;                 // [rows, heads, value_dim]
  float* lse = nullptr;                 // null, or [rows, heads]: logarithm of the sum of the weights
  /// Whether the rows belong to a draft: each gets the results of a call with this row alone, bit by bit, and the
  /// listener does not receive them.
  bool draft = false;

  int group() const { return heads / kv->heads(); }
  /// Returns the sequence index of a row.
  int64_t token(int64_t row) const { return kv->tokens() - rows + row; }
  /// Returns all queries of the layer, for selectors and listeners.
  LayerQueries layer_queries(const Kernels& kernels) const;
};

/// The engine's attention: selects pages, then computes exact attention over the selection. Keeps working memory
/// between calls.
class Attention {
 public:
  Attention(ThreadPool& pool, const Kernels& kernels) : pool_(pool), kernels_(kernels), scratch_(pool.threads()) {}

  /// Runs the attention of several sequences. Each has its own number of rows and pages; nothing is padded. Results
  /// depend neither on the number of threads nor on the rest of the batch. Calls Selector::plan and
  /// AttendListener::listen first; for a draft it calls Selector::plan before each row if there is a state.
  void run(std::span<const AttentionInput> inputs);
  /// Returns the totals over all calls of run().
  const AttentionCount& count() const { return count_; }

 private:
  struct HeadRows {  // rows [first, first + count) of one key/value head
    int head;
    int64_t first;
    int count;
  };
  struct BlockTask {  // a block of rows: attended in one task, or only prepared if its pages are split into parts
    const AttentionInput* input;
    HeadRows rows;
    int64_t prepared;  // index in prepared_; −1: attended in this task
  };
  struct PagePart {  // pages [begin, end) of a prepared block, and the location of its partial results
    const AttentionInput* input;
    AttentionBlock* block;
    int64_t begin, end;
    size_t out, lse;  // indices in partial_out_ and partial_lse_
  };
  enum class AttendPass { kFirst, kLast };

  void use_parallel_form(AttentionInput& input);
  void plan(const AttentionInput& input);
  void run_rows(const AttentionInput& input);
  void attend(std::span<const AttentionInput> inputs);
  void prepare(const AttentionInput& input, const HeadRows& rows, AttentionBlock& block) const;
  QueryBlock query_block(const AttentionInput& input, const AttentionBlock& block) const;
  void notify_watcher(const AttentionInput& input, const AttentionBlock& block, const float* lse) const;
  void rotate_queries(const AttentionInput& input, AttentionBlock& block) const;
  void read_pages(AttentionBlock& block) const;
  void store(const AttentionInput& input, const AttentionBlock& block, float* out, float* lse) const;
  void list_tasks(std::span<const AttentionInput> inputs);
  void attend_block(const BlockTask& task, int thread);
  void list_parts();
  void order_parts();
  void attend_parts(AttendPass pass);
  void merge_parts(AttendPass pass);
  void add(AttentionCount& count);

  ThreadPool& pool_;
  const Kernels& kernels_;
  std::vector<AttentionScratch> scratch_;  // one per thread
  std::vector<BlockTask> tasks_;
  std::vector<AttentionBlock> prepared_;  // the first prepared_count_ are in use, the others keep their memory
  size_t prepared_count_ = 0;
  std::vector<PagePart> parts_;
  std::vector<size_t> part_order_;  // in which parts_ are attended
  std::vector<AttentionInput> together_;
  std::deque<ParallelForm> parallel_forms_;  // of the current call of run()
  std::vector<float> partial_out_, partial_lse_;
  AttentionCount count_;
};

}  // namespace fathom
