// Softplus attention with a re-weighting that differs from the model file's.
//
// Row i of a sequence may attend to i keys, itself included. Its scores are s = ln d · ln i · cos(q, k), with the
// head width d. The weights are a = softplus(s) / Σ softplus(s), then b = max(0, i·a − offset)^power / Σ max(0, i·a
// − offset)^power. The offset is 0 in the first three rows; power 0 leaves a unchanged. i counts all tokens that
// the row may causally attend to, whatever `then` selects; the sums run over the selected tokens. If all i·a of a
// row are at or below the offset, its output is zero. Selectors and evictors that estimate shares by a softmax
// still do so: the order of a query's keys is the same.
#include "attend/forms/softplus_form.h"
#include "attend/methods.h"
#include "attend/score_transform.h"
#include "base/error.h"

namespace fathom {
namespace {

class SoftplusSelector final : public ScoreTransform {
 public:
  explicit SoftplusSelector(const Values& values)
      : ScoreTransform(values),
        form_(static_cast<float>(values.number("power")), static_cast<float>(values.number("offset"))) {}

  void attach(const AttendContext& context) override {
    if (!context.softplus) {
      fail_usage(
          "attend method softplus: expected a model trained with softplus attention (attention.softplus in its "
          "file, model.attention=softplus in training), found a model trained with softmax");
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
       .summary = "for models with softplus attention: a re-weighting that replaces the model file's",
       .paper = "Softplus Attention with Re-weighting Boosts Length Extrapolation in Large Language Models, 2025",
       .needs = "a model trained with softplus attention (model.attention in the trainer's config)",
       .time = "that of `then`; keys are read twice if the power is not 0",
       .memory = "that of `then`",
       .parameters =
           {{"power",
             Type::kFloat,
             "15",
             "exponent of the re-weighting; more is sharper: 15 for texts far beyond the trained length, 3 within "
             "it, 0: none",
             0,
             100,
             {}},
            {"offset",
             Type::kFloat,
             "1",
             "weights below offset / tokens count as 0; more removes more tokens (unused in the first three rows)",
             0,
             1000,
             {}},
            {"then", Type::kSpec, "dense", "the selector of the tokens that are attended to", {}, {}, {}}},
       .capabilities = {.works_with_compacted = true, .works_on_recurrent = true, .works_with_drafts = true}},
      [](const Values& values) { return std::make_unique<SoftplusSelector>(values); }};
}

}  // namespace fathom
