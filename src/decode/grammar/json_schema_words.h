#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace fathom::json_schema {

inline constexpr std::string_view kAnnotations[] = {
    "title",    "description",   "default", "examples",         "example",         "$schema",
    "$id",      "$comment",      "$anchor", "deprecated",       "readOnly",        "writeOnly",
    "$defs",    "definitions",   "id",      "contentMediaType", "contentEncoding", "contentSchema",
    "nullable", "discriminator", "xml",     "externalDocs",     "strict",          "name"};
inline constexpr std::string_view kStringWords[] = {"minLength", "maxLength", "pattern", "format"};
inline constexpr std::string_view kNumberWords[] = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
                                                    "multipleOf"};
inline constexpr std::string_view kObjectWords[] = {"properties", "required", "additionalProperties",
                                                    "minProperties", "maxProperties"};
inline constexpr std::string_view kArrayWords[] = {"items",    "prefixItems", "additionalItems",
                                                   "minItems", "maxItems",    "uniqueItems"};
inline constexpr std::string_view kAnyWords[] = {"type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"};

inline bool is_one_of(std::span<const std::string_view> words, std::string_view word) {
  return std::ranges::find(words, word) != words.end();
}

/// Returns whether a schema has one of the keywords.
inline bool has_one_of(const Json& schema, std::span<const std::string_view> words) {
  return std::ranges::any_of(words, [&](std::string_view word) { return schema.contains(word); });
}

/// Returns the place of a part of a schema: a JSON pointer.
inline std::string child(const std::string& place, std::string_view key) {
  std::string escaped;
  for (const char c : key) escaped += c == '~' ? "~0" : c == '/' ? "~1" : std::string(1, c);
  return place + "/" + escaped;
}

/// Returns whether a value is a number without a fraction.
inline bool is_whole(const Json& value) {
  return value.is_number_integer() || (value.is_number() && std::trunc(value.get<double>()) == value.get<double>());
}

/// Returns the types that a schema names or whose keywords it has; all of them if it has none.
inline std::vector<std::string> types_of(const Json& schema) {
  std::vector<std::string> types;
  if (const Json* type = schema.find("type")) {
    types = type->is_array() ? type->get<std::vector<std::string>>() : std::vector<std::string>{type->text()};
  } else {
    if (has_one_of(schema, kObjectWords)) types.emplace_back("object");
    if (has_one_of(schema, kArrayWords)) types.emplace_back("array");
    if (has_one_of(schema, kStringWords)) types.emplace_back("string");
    if (has_one_of(schema, kNumberWords)) types.emplace_back("number");
    if (types.empty()) types = {"object", "array", "string", "number", "boolean", "null"};
  }
  if (const Json* nullable = schema.find("nullable"); nullable && *nullable == Json(true) &&
                                                      schema.contains("type") &&
                                                      std::ranges::find(types, "null") == types.end())
    types.emplace_back("null");
  return types;
}

}  // namespace fathom::json_schema
