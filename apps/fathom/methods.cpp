// fathom methods: lists the methods of every kind, with their parameters and costs.
#include <algorithm>

#include "attend/methods.h"
#include "base/error.h"
#include "base/format.h"
#include "base/json.h"
#include "commands.h"
#include "console.h"
#include "context/methods.h"
#include "decode/constraint.h"
#include "decode/draft.h"
#include "decode/methods.h"
#include "decode/search.h"
#include "eval/task.h"
#include "evict/methods.h"
#include "position/rotary.h"
#include "session/session.h"

namespace fathom {
namespace {

struct MethodsOptions {
  std::string name;
  bool json = false;
};

std::vector<MethodInfo> all_methods() {
  std::vector<MethodInfo> all;
  for (const auto& infos :
       {attend_methods().infos(), position_methods().infos(), cache_methods().infos(), evict_methods().infos(),
        read_methods().infos(), sample_methods().infos(), draft_methods().infos(), search_methods().infos(),
        constraint_methods().infos(), join_methods().infos(), eval::task_methods().infos()}) {
    all.insert(all.end(), infos.begin(), infos.end());
  }
  return all;
}

/// Returns the default as JSON of the parameter's type; null if there is none.
Json default_of(const Parameter& parameter) {
  const Values values = check_values({}, {parameter});
  if (!values.has(parameter.name)) return nullptr;
  switch (parameter.type) {
    case Parameter::Type::kInt:
      return values.integer(parameter.name);
    case Parameter::Type::kFloat:
      return values.number(parameter.name);
    case Parameter::Type::kBool:
      return values.boolean(parameter.name);
    default:
      return values.string(parameter.name);
  }
}

/// Returns a number as JSON; whole numbers have no decimal point.
Json number(double value) {
  const auto whole = static_cast<int64_t>(value);
  return static_cast<double>(whole) == value ? Json(whole) : Json(value);
}

Json to_json(const Parameter& parameter) {
  Json json = {{"name", parameter.name}, {"type", name(parameter.type)}, {"default", default_of(parameter)}};
  if (parameter.min) json["min"] = number(*parameter.min);
  if (parameter.max) json["max"] = number(*parameter.max);
  if (!parameter.choices.empty()) json["choices"] = parameter.choices;
  if (!parameter.old_names.empty()) json["old_names"] = parameter.old_names;
  json["summary"] = parameter.summary;
  return json;
}

/// Returns whether the method's kind has capabilities. Methods of other kinds have no restrictions.
bool has_capabilities(const MethodInfo& method) {
  return method.kind == "attend" || method.kind == "evict" || method.kind == "read";
}

Json to_json(const Capabilities& c) {
  return {{"needs_host_pages", c.needs_host_pages},         {"reads_surprisal", c.reads_surprisal},
          {"works_with_compacted", c.works_with_compacted}, {"works_with_landmarks", c.works_with_landmarks},
          {"works_on_recurrent", c.works_on_recurrent},     {"works_with_drafts", c.works_with_drafts}};
}

Json to_json(const MethodInfo& method) {
  Json parameters = Json::array();
  for (const Parameter& parameter : method.parameters) parameters.push_back(to_json(parameter));
  Json json = {{"kind", method.kind},   {"name", method.name},     {"exact", method.exact},
               {"needs", method.needs}, {"paper", method.paper},   {"summary", method.summary},
               {"time", method.time},   {"memory", method.memory}, {"parameters", parameters}};
  if (has_capabilities(method)) json["capabilities"] = to_json(method.capabilities);
  return json;
}

std::string padded(std::string text, size_t width) {
  text.resize(std::max(width, text.size() + 1), ' ');
  return text;
}

/// Returns whether the entry is a task of `fathom eval`. Tasks are registered like methods but are not method
/// options.
bool is_task(const MethodInfo& method) { return method.kind == "task"; }

std::string heading(const MethodInfo& method) {
  return is_task(method) ? "fathom eval TASK" : concat("--", method.kind);
}

std::string table(const std::vector<MethodInfo>& methods) {
  std::string text, kind;
  for (const MethodInfo& method : methods) {
    if (method.kind != kind) text += concat(kind.empty() ? "" : "\n", heading(method), "\n");
    kind = method.kind;
    text += is_task(method) ? concat("  ", padded(method.name, 20), method.summary, "\n")
                            : concat("  ", padded(method.name, 17), padded(method.exact ? "exact" : "", 7),
                                     method.summary, "\n");
  }
  return text;
}

/// Returns type, range and default of a parameter, such as "int, from 1 to 100, default 16". Omits maxima that no
/// sensible value reaches.
std::string range_of(const Parameter& parameter) {
  constexpr double kPracticallyUnlimited = 1e6;
  std::string text = name(parameter.type);
  const bool has_max = parameter.max && *parameter.max < kPracticallyUnlimited;
  if (parameter.min) text += concat(has_max ? ", from " : ", at least ", number(*parameter.min).dump());
  if (has_max) text += concat(parameter.min ? " to " : ", at most ", number(*parameter.max).dump());
  for (const std::string& choice : parameter.choices)
    text += concat(&choice == &parameter.choices[0] ? ": " : "|", choice);
  const std::string& value = parameter.default_value;
  const bool printable = std::ranges::none_of(value, [](unsigned char c) { return c < ' '; });
  if (!value.empty()) text += ", default " + (printable ? value : quote(value));
  if (!parameter.old_names.empty()) text += ", old name " + comma_list(parameter.old_names);
  return text;
}

/// Returns the special models and evictors with which the method works, or, if `works` is false, does not work.
std::string combinations(const MethodInfo& method, bool works) {
  const Capabilities& c = method.capabilities;
  std::vector<std::string> parts;
  if (method.kind == "attend" && c.works_with_compacted == works)
    parts.emplace_back("evictors with positions=compacted");
  if (c.works_with_landmarks == works) parts.emplace_back("models with landmarks");
  if (c.works_on_recurrent == works) parts.emplace_back("models with recurrent layers");
  if (method.kind == "attend" && c.works_with_drafts == works) parts.emplace_back("drafts");
  return comma_list(parts);
}

/// Returns what a method reads apart from the queries.
std::string reads(const Capabilities& c) {
  std::vector<std::string> parts;
  if (c.needs_host_pages) parts.emplace_back("keys or values (in host memory)");
  if (c.reads_surprisal) parts.emplace_back("the surprisal of all tokens");
  return comma_list(parts);
}

std::string page(const MethodInfo& method) {
  std::string text =
      concat(is_task(method) ? "fathom eval" : heading(method), " ", method.name, "\n  ", method.summary, "\n");
  const auto line = [&](const char* label, const std::string& value) {
    if (!value.empty()) text += concat("  ", padded(label, 11), value, "\n");
  };
  line("paper", method.paper);
  if (!is_task(method))
    line("result",
         method.exact ? "exact: equal to the default method" : "approximate: may differ from the default method");
  line("needs", method.needs);
  line("time", method.time);
  line("memory", method.memory);
  if (has_capabilities(method)) {
    line("reads", reads(method.capabilities));
    line("works with", combinations(method, true));
    line("not with", combinations(method, false));
  }
  size_t width = 0;
  for (const Parameter& parameter : method.parameters) width = std::max(width, parameter.name.size());
  if (!method.parameters.empty()) text += "  parameters\n";
  for (const Parameter& parameter : method.parameters)
    text += concat("    ", padded(parameter.name, width + 2), parameter.summary, " (", range_of(parameter), ")\n");
  return text;
}

/// Returns the methods with this name or of this kind. Throws Error (usage) that lists the nearest names.
std::vector<MethodInfo> find_methods(const std::vector<MethodInfo>& all, const std::string& name) {
  std::vector<MethodInfo> found;
  std::vector<std::string> known;
  for (const MethodInfo& method : all) {
    if (method.name == name || method.kind == name) found.push_back(method);
    if (std::ranges::count(known, method.kind) == 0) known.push_back(method.kind);
    known.push_back(method.name);
  }
  if (found.empty()) {
    const std::vector<std::string> nearest = nearest_names(name, known);
    fail_usage(
        "unknown method or kind ", quote(name),
        nearest.empty() ? "; expected one of " + comma_list(known) : "; did you mean " + comma_list(nearest) + "?");
  }
  return found;
}

void run_methods(const MethodsOptions& options) {
  const std::vector<MethodInfo> all = all_methods();
  const std::vector<MethodInfo> chosen = options.name.empty() ? all : find_methods(all, options.name);
  if (options.json) {
    for (const MethodInfo& method : chosen) write_out(to_json(method).dump() + "\n");
  } else if (chosen.size() > 1 && chosen[0].name != options.name) {
    write_out(table(chosen) +
              "\nfathom methods NAME shows the parameters, cost and source of a method. Methods marked exact do "
              "not change results.\n");
  } else {
    for (const MethodInfo& method : chosen) write_out((&method == &chosen[0] ? "" : "\n") + page(method));
  }
}

}  // namespace

void add_methods(Command program) {
  auto o = std::make_shared<MethodsOptions>();
  Command command =
      program.add_command("methods", "List the methods of every kind, with their parameters and costs");
  command
      .add_option("name", o->name, "a method, to show its details, or a kind such as attend, to list its methods")
      .type_name("NAME");
  command.add_flag("--json", o->json, "print one JSON object per line");
  command.footer(
      R"(In costs, n is the number of tokens in the context and v the size of the vocabulary.

Examples:
  fathom methods window
  fathom methods --json | jq -r 'select(.exact) | .name'
)");
  command.callback([o] { run_methods(*o); });
}

}  // namespace fathom
