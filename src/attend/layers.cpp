// A selector for some layers and another for the rest.
#include <set>

#include "attend/selector.h"
#include "base/format.h"

namespace fathom {
namespace {

/// "0+4+8-11": layers by number and range; negative: from the last one back; "middle": the middle third.
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
      fail_usage("attend method layers: full: there is no layer ", *last, ", the model has ", count, ", 0 to ",
                 count - 1);
    }
    for (int64_t i = *first; i <= *last; ++i) layers.insert(static_cast<int>(i));
    begin = end + 1;
  }
  return layers;
}

class Layers final : public Selector {
 public:
  explicit Layers(const Values& values)
      : named_(values.string("full")),
        then_(attend_methods().make(values.string("then"))),
        else_(attend_methods().make(values.string("else"))) {}

  void attach(const AttendContext& context) override {
    layers_ = layers_of(named_, context.layers);
    then_->attach(context);
    else_->attach(context);
  }
  void select(const Lane& lane, const QueryBlock& block, Selection& selection) const override {
    (layers_.contains(block.layer) ? then_ : else_)->select(lane, block, selection);
  }

 private:
  std::string named_;
  std::set<int> layers_;
  std::unique_ptr<Selector> then_, else_;
};

}  // namespace

MethodInfo layers_info() {
  using Type = Parameter::Type;
  return {.name = "layers",
          .summary = "some layers see all (or what `then` says), the others what `else` says",
          .paper = "MASFormer, 2023; LongGen: A Little Goes a Long Way, 2024",
          .needs = "any model",
          .time = "that of the two, by their layers",
          .memory = "O(n): nothing is dropped",
          .parameters = {
              {"full", Type::kString, "middle", "layers as 0+4+8-11, or middle: the middle third", {}, {}, {}},
              {"then", Type::kSpec, "dense", "what these layers see", {}, {}, {}},
              {"else", Type::kSpec, "window", "what the others see", {}, {}, {}}}};
}

std::unique_ptr<Selector> make_layers(const Values& values) { return std::make_unique<Layers>(values); }

}  // namespace fathom
