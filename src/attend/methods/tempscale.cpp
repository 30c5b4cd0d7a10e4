// Divides attention scores by a temperature, which sharpens or flattens attention.
#include "attend/methods.h"
#include "attend/score_transform.h"

namespace fathom {
namespace {

class TempScale final : public ScoreTransform {
 public:
  explicit TempScale(const Values& values) : ScoreTransform(values), tau_(values.number("tau")) {}

  float score_factor(int layer) const override {
    return ScoreTransform::score_factor(layer) / static_cast<float>(tau_);
  }

 private:
  double tau_;
};

}  // namespace

SelectorEntry tempscale_method() {
  using Type = Parameter::Type;
  return {{.name = "tempscale",
           .summary = "attention scores divided by a temperature, in every layer and head",
           .paper = "Length-Induced Embedding Collapse in PLM-based Models, 2024",
           .needs = "any model; meant for embedding models, changes the predictions of a language model",
           .time = "that of `then`",
           .memory = "that of `then`",
           .parameters =
               {{"tau",
                 Type::kFloat,
                 "0.9",
                 "temperature; below 1 sharpens attention, above 1 flattens it",
                 0.01,
                 100,
                 {}},
                {"then", Type::kSpec, "dense", "the selector of the tokens that are attended to", {}, {}, {}}},
           .capabilities = {.works_with_compacted = true, .works_on_recurrent = true, .works_with_drafts = true}},
          [](const Values& values) { return std::make_unique<TempScale>(values); }};
}

}  // namespace fathom
