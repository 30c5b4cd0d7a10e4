// Softplus attention with another re-weighting than the model's file asks for.
//
// Row i of a sequence (it may see i keys, itself included) scores keys by s = ln d · ln i · cos(q, k), d the width
// of a head: a = softplus(s) / Σ softplus(s), then b = max(0, i·a − offset)^power / Σ of the same; offset is 0 in
// the first three rows, and power 0 leaves a as it is. i counts what the row may causally see in the sequence,
// whatever `then` chooses of it; the sums run over what is chosen. A row none of whose keys stands out (all i·a at
// or below the offset) reads zeros. Selectors and evictors that estimate shares by a softmax do so here, too: they
// order the keys of a query by the same scores.
#include "attend/forms/softplus_form.h"
#include "attend/methods.h"
#include "attend/score_transform.h"
#include "base/error.h"

namespace fathom {
namespace {

class Softplus final : public ScoreTransform {
 public:
  explicit Softplus(const Values& values)
      : ScoreTransform(values),
        form_(static_cast<float>(values.number("power")), static_cast<float>(values.number("offset"))) {}

  void attach(const AttendContext& context) override {
    if (!context.softplus) {
      fail_usage(
          "attend method softplus: this model was trained with softmax, whose weights mean nothing to softplus: "
          "expected a model whose file says attention.softplus (trained with model.attention softplus)");
    }
    ScoreTransform::attach(context);
  }
  const AttentionForm* form(int /*layer*/) const override { return &form_; }

 private:
  SoftplusForm form_;
};

}  // namespace

SelectorEntry softplus_method() {
  using Type = Parameter::Type;
  return {
      {.name = "softplus",
       .summary = "softplus attention re-weighted by another power than the model's; what is seen, `then` says",
       .paper = "Softplus Attention with Re-weighting Boosts Length Extrapolation in Large Language Models, 2025",
       .needs = "a model trained with softplus attention (model.attention in the trainer's config)",
       .time = "keys are read twice where the power is not 0; that of `then`",
       .memory = "that of `then`",
       .parameters = {{"power",
                       Type::kFloat,
                       "15",
                       "of the re-weighting: 15 far beyond the trained length, 3 within it, 0: none",
                       0,
                       100,
                       {}},
                      {"offset",
                       Type::kFloat,
                       "1",
                       "a share of 1/tokens, times this, has no weight; 0 in the first three rows",
                       0,
                       1000,
                       {}},
                      {"then", Type::kSpec, "dense", "what is seen", {}, {}, {}}},
       .capabilities = {.works_with_compacted = true, .works_on_recurrent = true}},
      [](const Values& values) { return std::make_unique<Softplus>(values); }};
}

}  // namespace fathom
