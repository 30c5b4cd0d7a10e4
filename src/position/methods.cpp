#include "base/error.h"
#include "position/rotary.h"

namespace fathom {
namespace {

Parameter factor_parameter(const char* value) {
  return {"factor", Parameter::Type::kFloat, value, "how many times longer than trained", 1e-3, 1e6, {}};
}

/// Sets a scaling with its factor; the trained length stays what the file says unless given.
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
  static const Parameter original{
      "original", Parameter::Type::kInt, "", "trained context length; the file's own if left out", 1, 1e9, {}};
  static const MethodTable<PositionMethod> table(
      "position", {{describe("file", "rotary positions as the model file says", "", true, {}),
                    [](const Values&, RotaryConfig&) {}},
                   {describe("plain", "rotary positions without any scaling",
                             "RoFormer: Enhanced Transformer with Rotary Position Embedding, 2021", false, {}),
                    [](const Values&, RotaryConfig& c) {
                      c.scaling = Scaling::kNone;
                      c.divisors.clear();
                      c.attention_factor = 1;
                    }},
                   {describe("linear", "positions divided by a factor",
                             "Extending Context Window of Large Language Models via Position Interpolation, 2023",
                             false, {factor_parameter("2")}),
                    [](const Values& v, RotaryConfig& c) { rescale(v, c, Scaling::kLinear); }},
                   {describe("ntk", "a larger rotary base: far pairs stretched, near ones kept",
                             "NTK-aware scaled RoPE, 2023", false, {factor_parameter("2")}),
                    [](const Values& v, RotaryConfig& c) { rescale(v, c, Scaling::kNtk); }},
                   {describe("yarn", "slow pairs interpolated, fast ones kept, sharper attention",
                             "YaRN: Efficient Context Window Extension of Large Language Models, 2023", false,
                             {factor_parameter("2"), original}),
                    [](const Values& v, RotaryConfig& c) { rescale(v, c, Scaling::kYarn); }}});
  return table;
}

}  // namespace fathom
