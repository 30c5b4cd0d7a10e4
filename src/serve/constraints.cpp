#include "serve/constraints.h"

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "base/format.h"
#include "decode/constraints/grammars.h"
#include "decode/grammar/json_schema.h"
#include "serve/api_error.h"

namespace fathom::serve {
namespace {

constexpr size_t kMostConstraints = 32;
constexpr size_t kMemory = size_t{16} << 20;  // bytes of each

/// The arguments of a call as a JSON object. A schema that cannot be followed is an error only for a strict tool.
GrammarBuilder::Expression json_arguments(JsonText& json, const Json& function) {
  const Json& schema = function.at("parameters");
  try {
    // What an error leaves behind in the builder must not spoil the grammar of the other tools.
    GrammarBuilder trial("arguments");
    JsonText trial_json(trial, {});
    const int32_t root = trial.declare("root");
    trial.define(root, JsonSchema(trial_json, schema, "arguments").translate());
    trial.build(root);
  } catch (const Error& error) {
    if (function.value("strict", false))
      throw ApiError(400, concat("tools: ", function.at("name").text(), ": ", error.what()), "invalid_schema");
    return json.object();
  }
  return JsonSchema(json, schema, "arguments").translate();
}

/// The arguments of a call one by one, in the order of the schema. Text is written as it is.
GrammarBuilder::Expression listed_arguments(JsonText& json, const AnswerFormat& format, const Json& function) {
  GrammarBuilder& builder = json.builder();
  const Json& schema = function.at("parameters");
  const Json* properties = schema.find("properties");
  const Json* required = schema.find("required");
  std::vector<GrammarBuilder::Expression> parts;
  for (const auto& [name, property] : properties ? properties->fields() : Json::Object()) {
    const Json* type = property.find("type");
    const bool text = !type || *type == Json("string");
    GrammarBuilder::Expression value = -1;
    if (const Json* list = property.find("enum"); list && text) {
      std::vector<GrammarBuilder::Expression> values;
      for (const Json& one : list->items())
        values.push_back(builder.literal(one.is_string() ? one.text() : one.dump()));
      value = builder.choice(std::move(values));
    } else if (text) {
      value = builder.repeat(builder.characters_except({{'<', '<'}}), 0, GrammarBuilder::kUnbounded);
    } else {
      value = json_arguments(json, {{"name", name}, {"parameters", property}});
    }
    const GrammarBuilder::Expression argument =
        builder.sequence({builder.literal(format.value_begin + name + format.value_middle), value,
                          builder.literal(format.value_end)});
    const bool needed = required && required->is_array() &&
                        std::ranges::find(required->items(), Json(name)) != required->items().end();
    parts.push_back(needed ? argument : builder.optional(argument));
  }
  return builder.sequence(std::move(parts));
}

/// What follows AnswerFormat::call_begin: the call of one of the tools, or of the chosen one.
Grammar call_grammar(const AnswerFormat& format, const ToolUse& tools) {
  GrammarBuilder builder("tools");
  JsonText json(builder, {});
  std::vector<GrammarBuilder::Expression> calls;
  for (const Json& tool : tools.tools.items()) {
    const Json& function = tool.at("function");
    const std::string& name = function.at("name").text();
    if (!tools.name.empty() && name != tools.name) continue;
    const GrammarBuilder::Expression arguments = format.style == AnswerFormat::Style::kParameters
                                                     ? listed_arguments(json, format, function)
                                                     : json_arguments(json, function);
    calls.push_back(builder.sequence(
        {builder.literal(name + format.call_middle), arguments, builder.literal(format.call_end)}));
  }
  const int32_t root = builder.declare("root");
  builder.define(root, builder.choice(std::move(calls)));
  return builder.build(root);
}

}  // namespace

std::shared_ptr<const Constraint> ConstraintCache::make(const JsonForm& form, const ToolUse& tools) {
  if (!tokens_) tokens_ = std::make_shared<const TokenBytes>(tokenizer_);
  if (tools.choice == ToolUse::Choice::kRequired)
    return make_grammar_constraint(tokens_, call_grammar(format_, tools), kMemory);
  return make_grammar_constraint(
      tokens_,
      form.kind == JsonForm::Kind::kAny ? json_grammar(true) : json_schema_grammar(form.schema, "the schema"),
      kMemory);
}

std::shared_ptr<const Constraint> ConstraintCache::find(const JsonForm& form, const ToolUse& tools) {
  const bool calls = tools.choice == ToolUse::Choice::kRequired;
  if (!calls && form.kind == JsonForm::Kind::kNone) return nullptr;
  const std::string key = calls ? concat("tools ", tools.name, " ", tools.tools.dump())
                                : concat("json ", form.kind == JsonForm::Kind::kAny, " ", form.schema.dump());
  const std::lock_guard lock(mutex_);
  if (const auto found = constraints_.find(key); found != constraints_.end()) return found->second;
  std::shared_ptr<const Constraint> made;
  try {
    made = make(form, tools);
  } catch (const ApiError&) {
    throw;
  } catch (const Error& error) {
    throw ApiError(400, error.what(), "invalid_schema");
  }
  constraints_.emplace(key, made);
  oldest_.push_back(key);
  if (oldest_.size() > kMostConstraints) {
    constraints_.erase(oldest_.front());
    oldest_.pop_front();
  }
  return made;
}

}  // namespace fathom::serve
