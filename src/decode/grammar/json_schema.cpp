#include "decode/grammar/json_schema.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/format.h"
#include "decode/grammar/json_schema_words.h"

namespace fathom {

using namespace json_schema;

void JsonSchema::fail_at(const std::string& place, const std::string& message) const {
  fail(source_, ": at ", place.empty() ? std::string("the root") : place, ": ", message);
}

GrammarBuilder::Expression JsonSchema::translate() {
  const Expression root = reference("#", "");
  while (!unfinished_.empty()) {
    const auto [target, rule] = unfinished_.back();
    unfinished_.pop_back();
    const std::string place = target.substr(1);
    builder_.define(rule, translate(resolve(target, place), place));
  }
  return root;
}

/// Returns a call of the rule of a part of the schema.
GrammarBuilder::Expression JsonSchema::reference(const std::string& target, const std::string& place) {
  resolve(target, place);
  const auto [found, added] = references_.try_emplace(target, -1);
  if (added) {
    found->second = builder_.declare(target);
    unfinished_.emplace_back(target, found->second);
  }
  return builder_.call(found->second);
}

GrammarBuilder::Expression JsonSchema::alternatives(const Json& schema, const char* keyword,
                                                    const std::string& place) {
  const Json& list = schema.at(keyword);
  if (!list.is_array() || list.empty()) fail_at(place, concat(keyword, ": expected a list of schemas"));
  if (std::string_view(keyword) == "oneOf") check_disjoint(list, place);
  Json rest = schema;
  rest.erase(keyword);
  for (const std::string_view word : kAnnotations) rest.erase(word);
  std::vector<Expression> parts;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string own = concat(place, "/", keyword, "/", i);
    parts.push_back(
        translate(rest.empty() ? list.at(i) : merged(without_references(list.at(i), own), rest, own), own));
  }
  return builder_.choice(std::move(parts));
}

GrammarBuilder::Expression JsonSchema::translate(const Json& schema, const std::string& place) {
  if (schema == Json(true)) return json_.value();
  if (schema == Json(false)) return builder_.choice({});
  if (!schema.is_object()) fail_at(place, "expected a schema: an object, true or false");
  if (std::ranges::count(place, '/') > 4 * Json::kMaxDepth) fail_at(place, "the schema is nested too deeply");
  for (const auto& [key, value] : schema.fields()) {
    const bool known = is_one_of(kAnnotations, key) || is_one_of(kAnyWords, key) || is_one_of(kStringWords, key) ||
                       is_one_of(kNumberWords, key) || is_one_of(kObjectWords, key) ||
                       is_one_of(kArrayWords, key) || key.starts_with("x-");
    if (!known) fail_at(place, concat("the keyword ", quote(key), " is not supported"));
  }
  if (const Json* target = schema.find("$ref")) {
    if (!target->is_string()) fail_at(place, "$ref: expected a text");
    const bool alone = std::ranges::all_of(schema.fields(), [](const auto& field) {
      return field.first == "$ref" || is_one_of(kAnnotations, field.first);
    });
    if (alone) return reference(target->text(), place);
    return translate(without_references(schema, place), place);
  }
  if (const Json* parts = schema.find("allOf")) {
    if (!parts->is_array()) fail_at(place, "allOf: expected a list of schemas");
    Json whole = schema;
    whole.erase("allOf");
    if (parts->size() == 1 && has_one_of(parts->at(0), std::array<std::string_view, 1>{"$ref"}) &&
        parts->at(0).size() == 1) {
      for (const std::string_view word : kAnnotations) whole.erase(word);
      if (whole.empty()) return translate(parts->at(0), child(place, "allOf/0"));
    }
    for (const Json& part : parts->items()) whole = merged(whole, without_references(part, place), place);
    return translate(whole, place);
  }
  if (schema.contains("anyOf")) return alternatives(schema, "anyOf", place);
  if (schema.contains("oneOf")) return alternatives(schema, "oneOf", place);
  if (const Json* value = schema.find("const")) return values_of(Json::array({*value}), schema, place);
  if (const Json* values = schema.find("enum")) return values_of(*values, schema, place);
  if (const Json* type = schema.find("type");
      type && !type->is_string() &&
      !(type->is_array() && !type->empty() && std::ranges::all_of(type->items(), &Json::is_string)))
    fail_at(place, "type: expected the name of a type, or a list of names");
  std::vector<Expression> parts;
  for (const std::string& type : types_of(schema)) parts.push_back(of_type(type, schema, place));
  return builder_.choice(std::move(parts));
}

Grammar json_grammar(bool object, const JsonLayout& layout) {
  GrammarBuilder builder("json");
  JsonText json(builder, layout);
  const int32_t root = builder.declare("root");
  builder.define(root, object ? json.object() : json.value());
  return builder.build(root);
}

Grammar json_schema_grammar(const Json& schema, const std::string& source, const JsonLayout& layout) {
  GrammarBuilder builder(source);
  JsonText json(builder, layout);
  const int32_t root = builder.declare("root");
  builder.define(root, JsonSchema(json, schema, source).translate());
  return builder.build(root);
}

}  // namespace fathom
