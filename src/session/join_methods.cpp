#include "session/session.h"

namespace fathom {

const MethodTable<JoinMethod>& join_methods() {
  using Entry = MethodTable<JoinMethod>::Entry;
  const Parameter reread{.name = "reread",
                         .type = Parameter::Type::kInt,
                         .default_value = "0",
                         .summary =
                             "first tokens of each later context that are read again after those before it; "
                             "more is closer to reading all in one go, and slower",
                         .min = 0,
                         .max = 1e12};
  const auto number = [](const char* name, const char* summary) {
    return Parameter{.name = name,
                     .type = Parameter::Type::kFloat,
                     .default_value = "0.9",
                     .summary = summary,
                     .min = 0.01,
                     .max = 10};
  };
  static const MethodTable<JoinMethod> table(
      "join",
      {Entry{{.kind = "",
              .name = "concat",
              .summary = "one context after the other; a later context was read without attending to earlier ones",
              .needs = "attention layers",
              .time = "O(reread) per context",
              .memory = "none: contexts share their pages",
              .parameters = {reread}},
             [](const Values& values) {
               return JoinOptions{.order = JoinOrder::kConcat, .reread = values.integer("reread")};
             }},
       Entry{{.kind = "",
              .name = "set",
              .summary = "all contexts at the same positions: the answer does not depend on their order",
              .paper = "Set-Based Prompting: Provably Solving the Language Model Order Dependency Problem, 2024",
              .needs = "attention layers",
              .time = "none",
              .memory = "none: contexts share their pages",
              .parameters = {}},
             [](const Values&) { return JoinOptions{.order = JoinOrder::kSet}; }},
       Entry{{.kind = "",
              .name = "ape",
              .summary = "like set, with less attention to contexts that would get too much because they were read "
                         "alone",
              .paper = "APE: Faster and Longer Context-Augmented Generation via Adaptive Parallel Encoding, 2025",
              .needs = "attention layers",
              .time = "attention to the contexts is computed twice",
              .memory = "none: contexts share their pages",
              .parameters = {number("t", "temperature: scores of contexts are divided by it; less is sharper"),
                             number("s",
                                    "scale of the logarithm of the total weight of the contexts; more gives "
                                    "them more weight")}},
             [](const Values& values) {
               return JoinOptions{.order = JoinOrder::kApe,
                                  .temperature = static_cast<float>(values.number("t")),
                                  .scale = static_cast<float>(values.number("s"))};
             }}});
  return table;
}

}  // namespace fathom
