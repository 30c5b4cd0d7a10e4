#pragma once

#include <memory>
#include <variant>

#include "attend/state_as.h"
#include "evict/scorer.h"

namespace fathom {

/// A scorer with a state of type State for each sequence. Methods override the protected functions, which receive
/// the state with its type. Throws Error if a sequence's state has another type.
template <class State>
class StatefulScorer : public Scorer {
 public:
  void attach(const AttendContext& context) override { query_heads_ = context.query_heads(); }
  std::unique_ptr<SequenceState> new_state() const final { return make_state(); }
  void listen(const LayerQueries& queries, ThreadPool& pool) const final {
    listen(queries, state_as<State>(*queries.state), pool);
  }
  void surprisal(const Surprisal& surprisal, SequenceState* state) const final {
    this->surprisal(surprisal, state_as<State>(*state));
  }
  void end_text(SequenceState* state, int64_t begin) const final { end_text(state_as<State>(*state), begin); }
  void score(const LayerTokens& layer, std::span<float> scores) const final {
    score(layer, state_as<const State>(*layer.state), scores);
  }

 protected:
  /// Returns the state of an empty sequence.
  virtual std::unique_ptr<State> make_state() const = 0;
  // As the functions of Scorer with the same names.
  virtual void listen(const LayerQueries& queries, State& state, ThreadPool& pool) const {
    static_cast<void>(queries), static_cast<void>(state), static_cast<void>(pool);
  }
  virtual void surprisal(const Surprisal& surprisal, State& state) const {
    static_cast<void>(surprisal), static_cast<void>(state);
  }
  virtual void end_text(State& state, int64_t begin) const { static_cast<void>(state), static_cast<void>(begin); }
  virtual void score(const LayerTokens& layer, const State& state, std::span<float> scores) const = 0;

  /// The number of query heads of each layer of the model.
  const std::vector<int>& query_heads() const { return query_heads_; }

 private:
  std::vector<int> query_heads_;
};

/// A StatefulScorer whose state has one Layer for each layer of the model, and one Common.
template <class Layer, class Common = std::monostate>
class LayeredScorer : public StatefulScorer<LayerStates<Layer, Common>> {
 protected:
  std::unique_ptr<LayerStates<Layer, Common>> make_state() const override {
    return std::make_unique<LayerStates<Layer, Common>>(this->query_heads());
  }
};

}  // namespace fathom
