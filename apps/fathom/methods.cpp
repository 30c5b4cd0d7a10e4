// fathom methods: what the registries say of every method.
#include <algorithm>

#include "attend/methods.h"
#include "base/error.h"
#include "base/format.h"
#include "base/json.h"
#include "commands.h"
#include "console.h"
#include "context/methods.h"
#include "decode/methods.h"
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
        read_methods().infos(), sample_methods().infos(), eval::task_methods().infos()}) {
    all.insert(all.end(), infos.begin(), infos.end());
  }
  return all;
}

/// A default as JSON of the parameter's type; null if there is none.
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

/// Whole numbers without a decimal point.
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

/// Methods of the other kinds go with everything.
bool has_capabilities(const MethodInfo& method) {
  return method.kind == "attend" || method.kind == "evict" || method.kind == "read";
}

Json to_json(const Capabilities& c) {
  return {{"needs_host_pages", c.needs_host_pages},
          {"reads_surprisal", c.reads_surprisal},
          {"works_with_compacted", c.works_with_compacted},
          {"works_with_landmarks", c.works_with_landmarks},
          {"works_on_recurrent", c.works_on_recurrent}};
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

/// Tasks are in the same tables, but leave results as they are: they ask for them.
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
                            : concat("  ", padded(method.name, 13), padded(method.exact ? "exact" : "", 7),
                                     method.summary, "\n");
  }
  return text;
}

/// "int, 1 to 100, default 16", as far as known.
std::string range_of(const Parameter& parameter) {
  std::string text = name(parameter.type);
  if (parameter.min) text += concat(", from ", number(*parameter.min).dump());
  if (parameter.max) text += concat(" to ", number(*parameter.max).dump());
  for (const std::string& choice : parameter.choices)
    text += concat(&choice == &parameter.choices[0] ? ": " : "|", choice);
  if (!parameter.default_value.empty()) text += ", default " + parameter.default_value;
  if (!parameter.old_names.empty()) text += ", formerly " + comma_list(parameter.old_names);
  return text;
}

/// What a method works with, and what it reads beside the queries.
std::string works_with(const Capabilities& c) {
  std::vector<std::string> parts;
  if (c.works_with_compacted) parts.emplace_back("evictors that move tokens");
  if (c.works_with_landmarks) parts.emplace_back("models with landmarks");
  if (c.works_on_recurrent) parts.emplace_back("models with recurrent layers");
  return parts.empty() ? "none of: evictors that move tokens, models with landmarks, models with recurrent layers"
                       : comma_list(parts);
}
std::string reads(const Capabilities& c) {
  std::vector<std::string> parts;
  if (c.needs_host_pages) parts.emplace_back("keys or values, in the host's memory");
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
    line("result", method.exact ? "exact: the same as the plain method" : "approximate or different");
  line("needs", method.needs);
  line("time", method.time);
  line("memory", method.memory);
  if (has_capabilities(method)) {
    line("reads", reads(method.capabilities));
    line("works with", works_with(method.capabilities));
  }
  for (const Parameter& parameter : method.parameters) {
    text += concat("  ", padded(parameter.name, 11), parameter.summary, " (", range_of(parameter), ")\n");
  }
  return text;
}

/// Those of this name, or of this kind. Throws Error (usage) with the nearest names.
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
    fail_usage("no method or kind is named ", quote(name),
               nearest.empty() ? ". Known: " + comma_list(known) : "; did you mean " + comma_list(nearest) + "?");
  }
  return found;
}

void run_methods(const MethodsOptions& options) {
  const std::vector<MethodInfo> all = all_methods();
  const std::vector<MethodInfo> chosen = options.name.empty() ? all : find_methods(all, options.name);
  if (options.json) {
    for (const MethodInfo& method : chosen) write_out(to_json(method).dump() + "\n");
  } else if (chosen.size() > 1) {
    write_out(table(chosen) +
              "\nfathom methods NAME tells more of one. Only what is marked exact leaves results as they are.\n");
  } else {
    for (const MethodInfo& method : chosen) write_out(page(method));
  }
}

}  // namespace

void add_methods(Command program) {
  auto o = std::make_shared<MethodsOptions>();
  Command command = program.add_command("methods", "List the methods to choose from, with parameters and costs");
  command.add_option("name", o->name, "a method, or a kind as attend, for its page").type_name("NAME");
  command.add_flag("--json", o->json, "one JSON object a line");
  command.footer(R"(Examples:
  fathom methods window
  fathom methods --json | jq -r 'select(.exact) | .name'
)");
  command.callback([o] { run_methods(*o); });
}

}  // namespace fathom
