#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "attend/queries.h"
#include "attend/selection.h"
#include "base/aligned.h"
#include "kernels/kernels.h"

namespace fathom {

/// Work and time of attention, for reports and tests.
struct AttentionCount {
  int64_t attended = 0;  // (query, key) pairs
  int64_t visible = 0;  // pairs of dense attention over a sequence without masked tokens, within the model's window
  // Nanoseconds, summed over all threads: for selection, and for attention as a whole, including selection.
  int64_t selecting = 0, running = 0;

  /// Returns the attended share of the pairs of dense attention; 1 if there are none.
  double attended_share() const { return share(attended, visible, 1); }
  /// Returns the share of the time spent on selecting; 0 if no time was measured.
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
  static double share(int64_t part, int64_t whole, double if_empty) {
    return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : if_empty;
  }
};

/// A block of rows of one key/value head, with its rotated queries and the pages that it reads.
struct AttentionBlock {
  const PagedKv* kv = nullptr;
  int layer = 0;
  int head = 0;   // key/value head
  int group = 1;  // query heads that share it
  int64_t first_row = 0;
  int rows = 0;
  std::vector<int64_t> tokens;  // [rows] sequence indices
  std::vector<float> queries;   // [rows, group, key_dim], scaled
  Selection selection;
  std::vector<PageRead> reads;
  std::vector<int64_t> read_tokens;  // sequence index of the first token of each page in `reads`
  int64_t last_page_end = 0;         // sequence index of the end of the last page read
  std::vector<uint64_t> row_masks;
  std::vector<float> rotations;  // of queries and pages at positions that PositionRotations does not store
  bool second_pass = false;      // whether this is the second pass
  std::vector<float> by_query;   // the form's data of each query for the second pass
  AttentionCount count;

  int queries_count() const { return rows * group; }
};

/// Working memory of one thread.
struct AttentionScratch {
  AttentionBlock block;
  AlignedBuffer<float> floats;  // scratch of the kernels
  std::vector<float> out, lse;
  std::vector<float> block_out, block_lse;   // of a part of the pages, for forms
  std::vector<float> landmark_keys, shares;  // of landmark gating
  std::vector<float> scaled_queries;         // of parallel contexts
  std::vector<PageRead> reads;               // of parallel contexts
};

/// Defines how a layer converts scores to weights and weights to outputs. Each layer of a model has one form; the
/// default is softmax. Immutable and thread-safe.
class AttentionForm {
 public:
  virtual ~AttentionForm() = default;

  /// Returns a factor on the scores of a row, in addition to the layer's scale. tokens: the length of the sequence
  /// up to and including the row.
  virtual float row_scale(int64_t tokens) const { return static_cast<void>(tokens), 1.0f; }
  /// Returns the maximum number of rows of a block whose last row is this token.
  virtual int64_t max_block_rows(int64_t token) const {
    return static_cast<void>(token), std::numeric_limits<int64_t>::max();
  }
  /// Returns the mask of the tokens of every page that no row attends to.
  virtual uint64_t unattended() const { return 0; }
  /// Adds to block.count the pairs that the form attends to in addition to the masks of block.reads.
  virtual void count(AttentionBlock& block) const { static_cast<void>(block); }

  /// Returns the weight function of the current pass.
  virtual WeightFunction weights(const Kernels& kernels, const AttentionBlock& block) const {
    return static_cast<void>(kernels), static_cast<void>(block), WeightFunction{};
  }
  /// Returns whether the weights depend on the log-sum-exp of a first pass, so that a second pass is needed.
  virtual bool has_second_pass() const { return false; }
  /// Sets block.by_query for the second pass. lse: [rows, group], the log-sum-exp of the first pass over all pages.
  virtual void prepare_second_pass(AttentionBlock& block, const float* lse) const {
    static_cast<void>(block), static_cast<void>(lse);
  }
  /// Returns whether the normalised weights of a query are the softmax of its scores.
  virtual bool is_softmax() const { return true; }

  /// Attends to the pages block.reads[begin, end) in the current pass. out: [rows, group, value_dim], or null if
  /// only lse is needed; lse: [rows, group]. merge_attention merges partial results over disjoint pages.
  virtual void attend(const Kernels& kernels, const AttentionBlock& block, int64_t begin, int64_t end, float* out,
                      float* lse, AttentionScratch& scratch) const;

  /// Changes the merged results of one row and query head. out: [value_dim].
  virtual void finish(int head, int value_dim, float* out, float& lse) const {
    static_cast<void>(head), static_cast<void>(value_dim), static_cast<void>(out), static_cast<void>(lse);
  }
  /// Returns whether finish() is overridden.
  virtual bool has_finish() const { return false; }

 protected:
  /// Attends to pages with these queries, [rows, group, key_dim]. out, lse: as attend.
  void attend_pages(const Kernels& kernels, const AttentionBlock& block, const float* queries,
                    std::span<const PageRead> pages, float* out, float* lse, AttentionScratch& scratch) const;
};

/// Returns the form of softmax attention, whose weights are e^score.
const AttentionForm& softmax_form();

}  // namespace fathom
