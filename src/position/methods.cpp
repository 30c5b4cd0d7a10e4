#include "base/error.h"
#include "position/rotary.h"

namespace fathom {
namespace {

Parameter factor_parameter(const char* value, const char* effect) {
  return {"factor", Parameter::Type::kFloat,
          value,    std::string("how many times longer than the trained length; ") + effect,
          1e-3,     1e6,
          {}};
}

/// Sets a scaling and its factor, and the trained length if `original` is given.
void rescale(const Values& values, RotaryConfig& config, RotaryConfig::Scaling scaling) {
  config.scaling = scaling;
  config.factor = values.number("factor");
  if (values.has("original")) config.original_context = static_cast<double>(values.integer("original"));
}

MethodInfo describe(const char* name, const char* summary, const char* paper, bool exact,
                    std::vector<Parameter> parameters) {
  return {"position", name, summary, paper, exact, "rotary model", "none", "none", std::move(parameters)};
}

}  // namespace

const MethodTable<PositionMethod>& position_methods() {
  using Scaling = RotaryConfig::Scaling;
  static const Parameter original{"original", Parameter::Type::kInt,
                                  "",         "the trained context length, in tokens; default: the model file's",
                                  1,          1e9,
                                  {}};
  static const MethodTable<PositionMethod> table(
      "position",
      {{describe("file", "rotary positions exactly as the model file states", "", true, {}),
        [](const Values&, RotaryConfig&) {}},
       {describe("plain", "rotary positions without any scaling, even if the file states one",
                 "RoFormer: Enhanced Transformer with Rotary Position Embedding, 2021", false, {}),
        [](const Values&, RotaryConfig& c) {
          c.scaling = Scaling::kNone;
          c.divisors.clear();
          c.attention_factor = 1;
        }},
       {describe("linear", "positions divided by a factor, so that a longer text fits into the trained range",
                 "Extending Context Window of Large Language Models via Position Interpolation, 2023", false,
                 {factor_parameter("2", "larger suits longer texts and distinguishes near positions less")}),
        [](const Values& v, RotaryConfig& c) { rescale(v, c, Scaling::kLinear); }},
       {describe("ntk", "a larger rotary base: slow rotary pairs become slower, fast ones hardly change",
                 "NTK-aware scaled RoPE, 2023", false, {factor_parameter("2", "larger suits longer texts")}),
        [](const Values& v, RotaryConfig& c) { rescale(v, c, Scaling::kNtk); }},
       {describe("yarn", "slow rotary pairs are interpolated, fast ones kept, and attention is sharpened",
                 "YaRN: Efficient Context Window Extension of Large Language Models, 2023", false,
                 {factor_parameter("2", "larger suits longer texts and sharpens attention more"), original}),
        [](const Values& v, RotaryConfig& c) { rescale(v, c, Scaling::kYarn); }}});
  return table;
}

}  // namespace fathom
