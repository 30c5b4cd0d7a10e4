#pragma once

#include "attend/methods.h"

namespace fathom {

/// A selector that changes scores or weights and leaves the selection to another selector, the spec's `then`.
class ScoreTransform : public Selector {
 public:
  void attach(const AttendContext& context) override { then_->attach(context); }
  std::unique_ptr<SequenceState> new_state() const override { return then_->new_state(); }
  void plan(const LayerQueries& queries, ThreadPool& pool) const override { then_->plan(queries, pool); }
  bool needs_surprisal() const override { return then_->needs_surprisal(); }
  void surprisal(const Surprisal& surprisal, SequenceState* state) const override {
    then_->surprisal(surprisal, state);
  }
  float score_factor(int layer) const override { return then_->score_factor(layer); }
  const AttentionForm* form(int layer) const override { return then_->form(layer); }
  void select(const PageTable& table, const QueryBlock& block, Selection& selection) const override {
    then_->select(table, block, selection);
  }

 protected:
  explicit ScoreTransform(const Values& values) : then_(attend_methods().make(values.string("then"))) {}

 private:
  std::unique_ptr<Selector> then_;
};

}  // namespace fathom
