#pragma once

#include <memory>

#include "attend/context.h"
#include "attend/queries.h"
#include "attend/selection.h"
#include "attend/surprisal.h"
#include "base/thread_pool.h"

namespace fathom {

class AttentionForm;

/// Selects the pages of a page table that a block of queries attends to. Thread-safe. A selector without state
/// returns the same selection for the same pages and queries, whatever was selected before. Everything that a
/// selector stores about a sequence is in the state, which the sequence owns.
class Selector {
 public:
  virtual ~Selector() = default;
  /// Called once, before the first selection. Throws Error (usage) if the method or its parameters do not suit the
  /// model.
  virtual void attach(const AttendContext& context) { static_cast<void>(context); }
  /// Returns the state for a sequence, which may already hold tokens; null if the method keeps no state.
  virtual std::unique_ptr<SequenceState> new_state() const { return nullptr; }
  /// Called once per sequence and layer in each forward pass, before the selections; for a draft with a state, once
  /// before each row. Makes selections that heads share and updates the state.
  virtual void plan(const LayerQueries& queries, ThreadPool& pool) const {
    static_cast<void>(queries), static_cast<void>(pool);
  }
  /// Returns whether the method uses the surprisal of tokens. If so, the session computes the logits of all tokens.
  virtual bool needs_surprisal() const { return false; }
  /// Called with the surprisal of tokens after they were read, if needs_surprisal() is true.
  virtual void surprisal(const Surprisal& surprisal, SequenceState* state) const {
    static_cast<void>(surprisal), static_cast<void>(state);
  }
  /// Returns a factor on the scores of a layer (1 / temperature), in addition to 1/√key_dim.
  virtual float score_factor(int layer) const { return static_cast<void>(layer), 1.0f; }
  /// Returns the attention form that replaces the model's own in a layer; null: the model's own.
  virtual const AttentionForm* form(int layer) const { return static_cast<void>(layer), nullptr; }
  /// Returns whether all tokens are selected.
  virtual bool selects_all() const { return false; }
  /// Fills `selection`, which is empty on entry. Thread-safe. The table may hold tokens after those of the block.
  virtual void select(const PageTable& table, const QueryBlock& block, Selection& selection) const = 0;
};

}  // namespace fathom
