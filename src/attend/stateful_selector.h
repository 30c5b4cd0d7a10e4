#pragma once

#include <memory>
#include <variant>

#include "attend/selector.h"
#include "attend/state_as.h"

namespace fathom {

/// A selector with a State for each sequence. Methods override the hooks below, which receive the state with its
/// type; this class checks the conversion from SequenceState.
template <class State>
class StatefulSelector : public Selector {
 public:
  void attach(const AttendContext& context) override { context_ = context; }
  std::unique_ptr<SequenceState> new_state() const final { return make_state(); }
  /// Does nothing for a sequence without a state.
  void plan(const LayerQueries& queries, ThreadPool& pool) const final {
    if (queries.state) plan(queries, state_as<State>(*queries.state), pool);
  }
  void surprisal(const Surprisal& surprisal, SequenceState* state) const final {
    if (state) this->surprisal(surprisal, state_as<State>(*state));
  }
  void select(const PageTable& table, const QueryBlock& block, Selection& selection) const final {
    select(table, block, block.state ? &state_as<const State>(*block.state) : nullptr, selection);
  }

 protected:
  /// Returns the state of a new sequence.
  virtual std::unique_ptr<State> make_state() const = 0;
  /// As Selector::plan.
  virtual void plan(const LayerQueries& queries, State& state, ThreadPool& pool) const = 0;
  /// As Selector::surprisal.
  virtual void surprisal(const Surprisal& surprisal, State& state) const {
    static_cast<void>(surprisal), static_cast<void>(state);
  }
  /// As Selector::select. state: null if the sequence has none; plan() was not called then.
  virtual void select(const PageTable& table, const QueryBlock& block, const State* state,
                      Selection& selection) const = 0;

  /// Returns the model that the method was attached to.
  const AttendContext& context() const { return context_; }

 private:
  AttendContext context_;
};

/// A StatefulSelector whose state has one part for each layer of the model.
template <class Layer, class Common = std::monostate>
class LayeredSelector : public StatefulSelector<LayerStates<Layer, Common>> {
 protected:
  std::unique_ptr<LayerStates<Layer, Common>> make_state() const override {
    return std::make_unique<LayerStates<Layer, Common>>(this->context().query_heads());
  }
};

}  // namespace fathom
