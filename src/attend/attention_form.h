#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "attend/queries.h"
#include "attend/selection.h"
#include "base/aligned.h"
#include "kernels/kernels.h"

namespace fathom {

/// How much was attended to: for reports and tests.
struct AttentionCount {
  int64_t attended = 0;  // (query, key) pairs
  int64_t visible = 0;  // pairs of dense attention over a sequence without masked tokens, within the model's window
  // Nanoseconds of all threads together: of selecting, and of all that attention does.
  int64_t selecting = 0, running = 0;

  /// Of the pairs of dense attention: that were attended to. 1 for none.
  double attended_share() const { return share(attended, visible, 1); }
  /// Of the time: that selecting took. 0 for none.
  double selecting_share() const { return share(selecting, running, 0); }

  AttentionCount& operator+=(const AttentionCount& more) {
    attended += more.attended, visible += more.visible;
    selecting += more.selecting, running += more.running;
    return *this;
  }
  AttentionCount operator-(const AttentionCount& before) const {
    return {attended - before.attended, visible - before.visible, selecting - before.selecting,
            running - before.running};
  }

 private:
  static double share(int64_t part, int64_t whole, double of_nothing) {
    return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : of_nothing;
  }
};

/// Some rows of one key/value head, with their rotated queries and the pages that they read.
struct AttentionBlock {
  const PagedKv* kv = nullptr;
  int layer = 0;
  int head = 0;   // key/value head
  int group = 1;  // query heads that share it
  int64_t first_row = 0;
  int rows = 0;
  std::vector<int64_t> tokens;  // [rows] sequence index of each
  std::vector<float> queries;   // [rows, group, key_dim], scaled
  Selection selection;
  std::vector<PageRead> reads;
  int64_t last_page_end = 0;  // sequence index of the end of the last page read
  std::vector<uint64_t> row_masks;
  std::vector<float> rotations;  // of queries and pages, where they are not kept in tables
  bool second_pass = false;      // under way
  std::vector<float> by_query;   // what the form keeps of each query for the second pass
  AttentionCount count;

  int queries_count() const { return rows * group; }
};

/// Working memory of one thread.
struct AttentionScratch {
  AttentionBlock block;
  AlignedBuffer<float> floats;  // of kernels
  std::vector<float> out, lse;
  std::vector<float> landmark_keys, shares, block_out, block_lse;  // of landmark gating
};

/// How the attention of a layer rotations scores into weights, and weights into outputs. Part of the model: a layer
/// has one. The default is softmax. Immutable, thread-safe.
class AttentionForm {
 public:
  virtual ~AttentionForm() = default;

  /// Multiplies the scores of a row besides the layer's scale. tokens: of the sequence up to the row, itself
  /// included.
  virtual float row_scale(int64_t tokens) const { return static_cast<void>(tokens), 1.0f; }
  /// How many rows before the one of this token, itself included, may share a block with it.
  virtual int64_t rows_together(int64_t token) const {
    return static_cast<void>(token), std::numeric_limits<int64_t>::max();
  }
  /// Tokens of every page that no row attends to.
  virtual uint64_t unattended() const { return 0; }
  /// Adds to block.count what the form attends to besides the masks of block.reads.
  virtual void count(AttentionBlock& block) const { static_cast<void>(block); }

  /// The weights of the pass under way.
  virtual WeightFunction weights(const Kernels& kernels, const AttentionBlock& block) const {
    return static_cast<void>(kernels), static_cast<void>(block), WeightFunction{};
  }
  /// Whether a second pass is needed, whose weights depend on the log-sum-exp of the first one.
  virtual bool has_second_pass() const { return false; }
  /// Sets block.by_query for the second pass. lse: [rows, group] of the first one over all pages.
  virtual void prepare_second_pass(AttentionBlock& block, const float* lse) const {
    static_cast<void>(block), static_cast<void>(lse);
  }
  /// Whether the weights of a query, divided by their sum, are the softmax of its scores.
  virtual bool is_softmax() const { return true; }

  /// Attends to the pages block.reads[begin, end) in the pass under way. out: [rows, group, value_dim], or null
  /// where only lse is wanted; lse: [rows, group]. Partial results over disjoint pages are joined with
  /// merge_attention.
  virtual void attend(const Kernels& kernels, const AttentionBlock& block, int64_t begin, int64_t end, float* out,
                      float* lse, AttentionScratch& scratch) const;

  /// Changes the results of a row, all pages joined. head: query head; out: [value_dim].
  virtual void finish(int head, int value_dim, float* out, float& lse) const {
    static_cast<void>(head), static_cast<void>(value_dim), static_cast<void>(out), static_cast<void>(lse);
  }
  /// Whether finish() does anything.
  virtual bool has_finish() const { return false; }
};

/// Attention by softmax: weights are e^score.
const AttentionForm& softmax_form();

}  // namespace fathom
