#pragma once

#include <memory>

#include "attend/context.h"
#include "attend/queries.h"
#include "attend/selection.h"
#include "attend/surprisal.h"
#include "base/thread_pool.h"

namespace fathom {

class AttentionForm;

/// Chooses which pages of a table a block of queries sees. Thread-safe; a selector without state gives the same
/// selection for the same pages and queries, whatever was selected before. What it remembers of a sequence is in
/// the state, which belongs to the sequence's memory.
class Selector {
 public:
  virtual ~Selector() = default;
  /// Called once, before the first selection. Throws Error (usage) for what does not suit the model.
  virtual void attach(const AttendContext& context) { static_cast<void>(context); }
  /// For a new sequence, or one that is there already; null: the method keeps none.
  virtual std::unique_ptr<SequenceState> new_state() const { return nullptr; }
  /// Comes before the selections of a layer, once for each sequence: choices that heads share, notes for later.
  virtual void plan(const LayerQueries& queries, ThreadPool& pool) const {
    static_cast<void>(queries), static_cast<void>(pool);
  }
  /// Whether the method uses the surprisal of tokens. If so, the session computes the logits of all tokens.
  virtual bool needs_surprisal() const { return false; }
  /// Called after tokens were read, if needs_surprisal().
  virtual void surprisal(const Surprisal& surprisal, SequenceState* state) const {
    static_cast<void>(surprisal), static_cast<void>(state);
  }
  /// Multiplies the scores of a layer besides 1/√key_dim: 1/temperature.
  virtual float score_factor(int layer) const { return static_cast<void>(layer), 1.0f; }
  /// Replaces the form of a layer's attention; null: the model's own.
  virtual const AttentionForm* form(int layer) const { return static_cast<void>(layer), nullptr; }
  /// Whether selections depend on the queries: rows of a draft are then selected for one by one.
  virtual bool selects_by_query() const { return true; }
  /// Whether select() uses what plan() chose for the same rows. Rows of a draft are not planned for.
  virtual bool selects_from_plan() const { return false; }
  /// Thread-safe. Fills `selection` (empty on entry).
  virtual void select(const PageTable& table, const QueryBlock& block, Selection& selection) const = 0;
};

}  // namespace fathom
