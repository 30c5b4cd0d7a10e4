// Drafts of a model that was tuned to predict further tokens in the rows of placeholder tokens.
#include <memory>
#include <string>

#include "base/error.h"
#include "decode/draft.h"
#include "decode/drafts/probed_draft.h"

namespace fathom {
namespace {

constexpr int64_t kMinLength = 2, kMaxLength = 8;

/// Returns a parameter, or the value of the model's key if it is not given. Throws Error for a value outside [min,
/// max], and Error (usage) if there is none.
int64_t value_or_key(const Values& values, const char* parameter, const Model& model, int64_t min, int64_t max) {
  const std::string key = concat("fathom.lexical_unit.", parameter);
  if (values.has(parameter)) {
    const int64_t value = values.integer(parameter);
    if (value < min || value > max)
      fail_usage("--draft lexical-unit: ", parameter, ": expected ", min, " to ", max, ", found ", value);
    return value;
  }
  const auto found = model.file() ? model.file()->integer(key) : std::nullopt;
  if (!found)
    fail_usage("--draft lexical-unit: the model has no metadata key '", key,
               "': expected a model that was tuned for "
               "lexical units, or ",
               parameter, "=N");
  if (*found < min || *found > max)
    fail(model.file()->name(), ": metadata key '", key, "': expected ", min, " to ", max, ", found ", *found);
  return *found;
}

class LexicalUnitSource final : public DraftSource {
 public:
  LexicalUnitSource(const Values& values, const DraftSetup& setup) : drafts_(options(values, setup)) {}
  DraftNeeds needs() const override { return {.alone = true}; }
  Draft propose(const DraftContext& context, int nodes) override { return drafts_.propose(context, nodes); }
  void observe(const DraftOutcome& outcome) override { drafts_.observe(outcome); }

 private:
  static ProbeOptions options(const Values& values, const DraftSetup& setup) {
    ProbeOptions options;
    options.token =
        static_cast<int32_t>(value_or_key(values, "pad", *setup.model, 0, setup.model->config().vocabulary - 1));
    options.steps = static_cast<int>(value_or_key(values, "length", *setup.model, kMinLength, kMaxLength)) - 1;
    options.candidates = options.steps;
    options.threshold = values.number("threshold");
    options.chain = setup.session && setup.session->draft_shape() == Session::DraftShape::kChain;
    options.tokenizer = setup.tokenizer;
    return options;
  }

  ProbedDrafts drafts_;
};

}  // namespace

DraftEntry lexical_unit_method() {
  using Type = Parameter::Type;
  return {
      {.name = "lexical-unit",
       .summary = "a tuned model predicts the next tokens in the rows of placeholders, which every pass contains",
       .paper = "Lexical Unit Decoding, 2024",
       .exact = true,
       .needs = "a model that was tuned for lexical units; works alone only",
       .time = "rows of the pass: the candidates, and up to length − 1 placeholders after each",
       .memory = "the logits of length − 1 rows",
       .parameters = {{.name = "pad",
                       .type = Type::kInt,
                       .summary = "token id of the placeholder; not given: fathom.lexical_unit.pad of the model",
                       .min = 0,
                       .max = 1e9},
                      {.name = "length",
                       .type = Type::kInt,
                       .summary = "tokens of the longest unit; not given: fathom.lexical_unit.length of the model",
                       .min = kMinLength,
                       .max = kMaxLength},
                      {.name = "threshold",
                       .type = Type::kFloat,
                       .default_value = "0.3",
                       .summary = "a draft ends before a token with at most this probability; more: shorter drafts",
                       .min = 0,
                       .max = 1}}},
      [](const Values& values, const DraftSetup& setup) {
        return std::make_unique<LexicalUnitSource>(values, setup);
      }};
}

}  // namespace fathom
