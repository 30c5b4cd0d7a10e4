// One selector for some layers and another for the other layers.
#include <set>

#include "attend/methods.h"
#include "attend/stateful_selector.h"
#include "base/format.h"

namespace fathom {
namespace {

/// Parses a set of layers: numbers and ranges such as "0+4+8-11", or "middle" for the middle third. count: layers
/// of the model. Throws Error (usage) if the text is invalid or the model has no such layer.
std::set<int> layers_of(const std::string& text, int count) {
  std::set<int> layers;
  if (text == "middle") {
    for (int i = count / 3; i < count - count / 3; ++i) layers.insert(i);
    return layers;
  }
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('+', begin), text.size());
    const std::string part = text.substr(begin, end - begin);
    const size_t dash = part.find('-');
    const auto first = parse_size(part.substr(0, dash));
    const auto last = dash == part.npos ? first : parse_size(part.substr(dash + 1));
    if (!first || !last || *first > *last)
      fail_usage("attend method layers: full: expected layers as 0+4+8-11, or middle, found ", quote(text));
    if (*last >= count) {
      fail_usage("attend method layers: full: expected layers from 0 to ", count - 1, ", found ", *last);
    }
    for (int64_t i = *first; i <= *last; ++i) layers.insert(static_cast<int>(i));
    begin = end + 1;
  }
  return layers;
}

/// The states of both selectors; either may be null.
struct BothStates final : SequenceState {
  std::unique_ptr<SequenceState> then, other;

  std::unique_ptr<SequenceState> fork() const override {
    auto copy = std::make_unique<BothStates>();
    if (then) copy->then = then->fork();
    if (other) copy->other = other->fork();
    return copy;
  }
  void rewind(int64_t tokens) override {
    if (then) then->rewind(tokens);
    if (other) other->rewind(tokens);
  }
  size_t bytes() const override { return (then ? then->bytes() : 0) + (other ? other->bytes() : 0); }
  void save(ByteWriter& out, const Sequence& sequence) const override {
    if (then) then->save(out, sequence);
    if (other) other->save(out, sequence);
  }
  void load(ByteReader& in, const Sequence& sequence) override {
    if (then) then->load(in, sequence);
    if (other) other->load(in, sequence);
  }
  bool stores_positions() const override {
    return (then && then->stores_positions()) || (other && other->stores_positions());
  }
};

class LayersSelector final : public StatefulSelector<BothStates> {
 public:
  explicit LayersSelector(const Values& values)
      : named_(values.string("full")),
        then_(attend_methods().make(values.string("then"))),
        else_(attend_methods().make(values.string("else"))) {}

  void attach(const AttendContext& context) override {
    StatefulSelector::attach(context);
    layers_ = layers_of(named_, context.layers);
    then_->attach(context);
    else_->attach(context);
  }
  std::unique_ptr<BothStates> make_state() const override {
    auto states = std::make_unique<BothStates>();
    states->then = then_->new_state();
    states->other = else_->new_state();
    return states;
  }
  void plan(const LayerQueries& queries, BothStates& states, ThreadPool& pool) const override {
    LayerQueries own = queries;
    own.state = state(queries.layer, states);
    selector(queries.layer).plan(own, pool);
  }
  bool needs_surprisal() const override { return then_->needs_surprisal() || else_->needs_surprisal(); }
  void surprisal(const Surprisal& surprisal, BothStates& states) const override {
    if (then_->needs_surprisal()) then_->surprisal(surprisal, states.then.get());
    if (else_->needs_surprisal()) else_->surprisal(surprisal, states.other.get());
  }
  float score_factor(int layer) const override { return selector(layer).score_factor(layer); }
  const AttentionForm* form(int layer) const override { return selector(layer).form(layer); }
  void select(const PageTable& table, const QueryBlock& block, const BothStates* states,
              Selection& selection) const override {
    QueryBlock own = block;
    own.state = states ? state(block.layer, *states) : nullptr;
    selector(block.layer).select(table, own, selection);
  }

 private:
  const Selector& selector(int layer) const { return layers_.contains(layer) ? *then_ : *else_; }
  SequenceState* state(int layer, const BothStates& states) const {
    return layers_.contains(layer) ? states.then.get() : states.other.get();
  }

  std::string named_;
  std::set<int> layers_;
  std::unique_ptr<Selector> then_, else_;
};

}  // namespace

SelectorEntry layers_method() {
  using Type = Parameter::Type;
  return {
      {.name = "layers",
       .summary = "one selector for the named layers, another for the other layers",
       .paper = "MASFormer, 2023; LongGen: A Little Goes a Long Way, 2024",
       .needs = "any model",
       .time = "in each layer that of its selector",
       .memory = "O(n): nothing is evicted",
       .parameters =
           {{"full",
             Type::kString,
             "middle",
             "layers that use `then`, as 0+4+8-11, or middle (the middle third); more of them is usually slower",
             {},
             {},
             {}},
            {"then", Type::kSpec, "dense", "selector of the named layers", {}, {}, {}},
            {"else", Type::kSpec, "window", "selector of all other layers", {}, {}, {}}},
       .capabilities = {.works_with_compacted = true, .works_on_recurrent = true, .works_with_drafts = true}},
      [](const Values& values) { return std::make_unique<LayersSelector>(values); }};
}

}  // namespace fathom
