#include "base/common_parameters.h"

#include <algorithm>

namespace fathom {
namespace {

Parameter parameter(const char* name, Parameter::Type type, const char* summary, ParameterOverrides terms) {
  return {.name = name,
          .type = type,
          .default_value = std::move(terms.value),
          .summary = terms.summary.empty() ? summary : std::move(terms.summary),
          .min = terms.min,
          .max = terms.max,
          .old_names = std::move(terms.old_names)};
}

}  // namespace

Parameter sink_parameter(ParameterOverrides terms) {
  return parameter("sink", Parameter::Type::kInt,
                   "first tokens, always visible; models rely on a few of them, more only costs time",
                   std::move(terms));
}
Parameter window_parameter(ParameterOverrides terms) {
  return parameter("window", Parameter::Type::kInt,
                   "newest tokens, always visible, the query's own included; more is closer to dense attention and "
                   "slower",
                   std::move(terms));
}
Parameter budget_parameter(ParameterOverrides terms) {
  return parameter("budget", Parameter::Type::kInt,
                   "tokens visible to a query; more is closer to dense attention and slower", std::move(terms));
}
Parameter share_parameter(ParameterOverrides terms) {
  terms.max = std::min(terms.max, 1.0);
  return parameter(
      "share", Parameter::Type::kFloat,
      "visible tokens as a share of all tokens, if more than the budget; more is closer to dense attention "
      "and slower",
      std::move(terms));
}
Parameter block_parameter(ParameterOverrides terms) {
  return parameter("block", Parameter::Type::kInt,
                   "consecutive tokens selected together; larger is faster and less selective", std::move(terms));
}
Parameter topk_parameter(ParameterOverrides terms) {
  return parameter("topk", Parameter::Type::kInt, "blocks selected; more is closer to dense attention and slower",
                   std::move(terms));
}
Parameter chunk_parameter(ParameterOverrides terms) {
  return parameter("chunk", Parameter::Type::kInt,
                   "queries that share one selection while a text is read; more is faster and less precise",
                   std::move(terms));
}
Parameter positions_parameter(std::string value, std::vector<std::string> choices, std::string summary) {
  std::map<std::string, std::string> old_values = {
      {"true", "original"}, {"far", "clamped"}, {"packed", "compacted"}, {"slots", "compacted"}};
  std::erase_if(old_values, [&](const auto& old) { return std::ranges::count(choices, old.second) == 0; });
  return {.name = "positions",
          .type = Parameter::Type::kChoice,
          .default_value = std::move(value),
          .summary = std::move(summary),
          .choices = std::move(choices),
          .old_names = {"place", "places"},
          .old_values = std::move(old_values)};
}

}  // namespace fathom
