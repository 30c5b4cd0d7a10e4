#include "decode/grammar/json_schema.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <optional>
#include <set>
#include <span>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/format.h"
#include "decode/grammar/string_pattern.h"

namespace fathom {
namespace {

constexpr size_t kMostNameBytes = 1000;
constexpr int kMostReferences = 64;  // that refer to one another
constexpr int kMostFractionDigits = 6;
constexpr size_t kMostPrefixItems = 1000;

constexpr std::string_view kAnnotations[] = {
    "title",    "description",   "default", "examples",         "example",         "$schema",
    "$id",      "$comment",      "$anchor", "deprecated",       "readOnly",        "writeOnly",
    "$defs",    "definitions",   "id",      "contentMediaType", "contentEncoding", "contentSchema",
    "nullable", "discriminator", "xml",     "externalDocs",     "strict",          "name"};
constexpr std::string_view kStringWords[] = {"minLength", "maxLength", "pattern", "format"};
constexpr std::string_view kNumberWords[] = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
                                             "multipleOf"};
constexpr std::string_view kObjectWords[] = {"properties", "required", "additionalProperties", "minProperties",
                                             "maxProperties"};
constexpr std::string_view kArrayWords[] = {"items",    "prefixItems", "additionalItems",
                                            "minItems", "maxItems",    "uniqueItems"};
constexpr std::string_view kAnyWords[] = {"type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"};

bool is_one_of(std::span<const std::string_view> words, std::string_view word) {
  return std::ranges::find(words, word) != words.end();
}

bool has_one_of(const Json& schema, std::span<const std::string_view> words) {
  return std::ranges::any_of(words, [&](std::string_view word) { return schema.contains(word); });
}

std::string child(const std::string& place, std::string_view key) {
  std::string escaped;
  for (const char c : key) escaped += c == '~' ? "~0" : c == '/' ? "~1" : std::string(1, c);
  return place + "/" + escaped;
}

/// Regular expressions of the formats that are followed; nullptr for others.
const char* pattern_of_format(std::string_view format) {
  constexpr const char* kDate = "^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])$";
  constexpr const char* kTime =
      "^([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$";
  constexpr const char* kDateTime =
      "^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|"
      "[+-]([01][0-9]|2[0-3]):[0-5][0-9])$";
  constexpr const char* kUuid = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$";
  constexpr const char* kIpv4 =
      "^(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(\\.(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])){3}$";
  constexpr const char* kEmail =
      "^[A-Za-z0-9_+-]{1,32}(\\.[A-Za-z0-9_+-]{1,32}){0,2}@[a-z0-9]{1,32}(\\.[a-z0-9]{1,32}){0,2}\\.[a-z]{2,8}$";
  if (format == "date") return kDate;
  if (format == "time") return kTime;
  if (format == "date-time") return kDateTime;
  if (format == "uuid") return kUuid;
  if (format == "ipv4") return kIpv4;
  if (format == "email") return kEmail;
  return nullptr;
}

std::string type_of(const Json& value) {
  if (value.is_null()) return "null";
  if (value.is_boolean()) return "boolean";
  if (value.is_string()) return "string";
  if (value.is_array()) return "array";
  if (value.is_object()) return "object";
  return "number";
}

bool is_whole(const Json& value) {
  return value.is_number_integer() || (value.is_number() && std::trunc(value.get<double>()) == value.get<double>());
}

/// Returns the types that a schema names or whose keywords it has; all of them if it has none.
std::vector<std::string> types_of(const Json& schema) {
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

}  // namespace

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

/// Returns the part of the schema that a reference names.
const Json& JsonSchema::resolve(const std::string& target, const std::string& place) const {
  if (!target.starts_with('#') || (target.size() > 1 && target[1] != '/'))
    fail_at(place,
            concat("$ref ", quote(target), ": expected a reference inside of the schema, such as #/$defs/NAME"));
  const Json* at = &schema_;
  for (size_t begin = 2; begin <= target.size();) {
    const size_t end = std::min(target.find('/', begin), target.size());
    std::string key;
    for (size_t i = begin; i < end; ++i) {
      const bool tilde = target[i] == '~' && i + 1 < end, percent = target[i] == '%' && i + 2 < end;
      if (tilde && (target[i + 1] == '0' || target[i + 1] == '1')) {
        key += target[++i] == '0' ? '~' : '/';
      } else if (percent) {
        key += static_cast<char>(std::strtol(target.substr(i + 1, 2).c_str(), nullptr, 16));
        i += 2;
      } else {
        key += target[i];
      }
    }
    const Json* next = at->find(key);
    if (!next && at->is_array() && !key.empty() && key.size() < 9 &&
        key.find_first_not_of("0123456789") == std::string::npos && std::stoul(key) < at->size())
      next = &at->at(std::stoul(key));
    if (!next) fail_at(place, concat("$ref ", quote(target), " names no part of the schema"));
    at = next;
    begin = end + 1;
  }
  return *at;
}

/// Returns a schema whose `$ref` at the top is replaced by what it names.
Json JsonSchema::without_references(const Json& schema, const std::string& place) const {
  Json result = schema;
  for (int count = 0; result.is_object() && result.contains("$ref"); ++count) {
    if (count == kMostReferences) fail_at(place, "$ref: references that refer to one another");
    const Json target = result.at("$ref");
    result.erase("$ref");
    result = merged(resolve(target.text(), place), result, place);
  }
  return result;
}

/// Returns a schema that accepts what both accept.
Json JsonSchema::merged(const Json& a, const Json& b, const std::string& place) const {
  if (a == Json(false) || b == Json(false)) return false;
  if (!a.is_object() || a.empty()) return b;
  if (!b.is_object() || b.empty()) return a;
  Json result = a;
  const auto closed = [](const Json& schema) {
    return schema.value("additionalProperties", Json()) == Json(false);
  };
  for (const auto& [key, value] : b.fields()) {
    Json* own = result.find(key);
    if (!own || *own == value || is_one_of(kAnnotations, key)) {
      result[key] = value;
    } else if (key == "properties") {
      for (const auto& [name, property] : value.fields()) {
        const Json* other = own->find(name);
        (*own)[name] = other ? Json{{"allOf", Json::array({*other, property})}} : property;
      }
    } else if (key == "required") {
      for (const Json& name : value.items())
        if (std::ranges::find(own->items(), name) == own->items().end()) own->push_back(name);
    } else if (key == "type") {
      const std::vector<std::string> left = types_of(a), right = types_of(b);
      Json both = Json::array();
      for (const std::string& type : left) {
        if (std::ranges::find(right, type) != right.end()) both.push_back(type);
        if (type == "number" && std::ranges::find(right, "integer") != right.end()) both.push_back("integer");
        if (type == "integer" && std::ranges::find(right, "number") != right.end()) both.push_back("integer");
      }
      if (both.empty()) return false;
      *own = both.size() == 1 ? both.at(0) : both;
    } else if (key == "minimum" || key == "exclusiveMinimum" || key == "minLength" || key == "minItems" ||
               key == "minProperties") {
      *own = std::max(own->get<double>(), value.get<double>());
    } else if (key == "maximum" || key == "exclusiveMaximum" || key == "maxLength" || key == "maxItems" ||
               key == "maxProperties") {
      *own = std::min(own->get<double>(), value.get<double>());
    } else if (key == "enum") {
      Json both = Json::array();
      for (const Json& item : value.items())
        if (std::ranges::find(own->items(), item) != own->items().end()) both.push_back(item);
      *own = both;
    } else if (key == "const") {
      return false;
    } else if (key == "items") {
      *own = {{"allOf", Json::array({*own, value})}};
    } else if (key == "additionalProperties") {
      *own =
          *own == Json(false) || value == Json(false) ? Json(false) : Json{{"allOf", Json::array({*own, value})}};
    } else if (key == "allOf" || key == "$ref") {
      result["allOf"].push_back({{key, value}});
    } else {
      fail_at(place, concat(key, ": cannot be combined with another ", key));
    }
  }
  // A schema without further properties also forbids those that only the other one names.
  if (!closed(a) && !closed(b)) return result;
  const Json* properties = result.find("properties");
  Json kept = Json::object();
  const auto allows = [&](const Json& schema, const std::string& name) {
    const Json* own = schema.find("properties");
    return !closed(schema) || (own && own->contains(name));
  };
  for (const auto& [name, property] : properties ? properties->fields() : Json::Object())
    if (allows(a, name) && allows(b, name)) kept[name] = property;
  result["properties"] = kept;
  return result;
}

/// Returns whether no value can have both schemas, as far as types and constants tell.
bool JsonSchema::disjoint(const Json& a, const Json& b, const std::string& place) const {
  const Json left = without_references(a, place), right = without_references(b, place);
  if (!left.is_object() || !right.is_object()) return false;
  const auto values = [](const Json& schema) -> std::optional<Json> {
    if (const Json* one = schema.find("const")) return Json::array({*one});
    if (const Json* list = schema.find("enum")) return *list;
    return std::nullopt;
  };
  const auto left_values = values(left), right_values = values(right);
  if (left_values && right_values)
    return std::ranges::none_of(left_values->items(), [&](const Json& value) {
      return std::ranges::find(right_values->items(), value) != right_values->items().end();
    });
  const std::vector<std::string> left_types = types_of(left), right_types = types_of(right);
  const auto plain = [](const std::string& type) { return type == "integer" ? std::string("number") : type; };
  const bool common = std::ranges::any_of(left_types, [&](const std::string& type) {
    return std::ranges::any_of(right_types, [&](const std::string& other) { return plain(type) == plain(other); });
  });
  if (!common) return true;
  // Objects that tell themselves apart by a required property.
  if (left_types != std::vector<std::string>{"object"} || right_types != left_types) return false;
  const Json *left_properties = left.find("properties"), *right_properties = right.find("properties");
  const Json *left_required = left.find("required"), *right_required = right.find("required");
  if (!left_properties || !right_properties || !left_required || !right_required) return false;
  for (const Json& name : left_required->items()) {
    if (std::ranges::find(right_required->items(), name) == right_required->items().end()) continue;
    const Json *mine = left_properties->find(name.text()), *other = right_properties->find(name.text());
    if (mine && other && (mine->contains("const") || mine->contains("enum") || mine->contains("type")) &&
        disjoint(*mine, *other, place))
      return true;
  }
  return false;
}

void JsonSchema::check_disjoint(const Json& list, const std::string& place) const {
  constexpr size_t kMostAlternatives = 200;
  if (list.size() > kMostAlternatives) fail_at(place, "oneOf: too many alternatives");
  for (size_t i = 0; i < list.size(); ++i)
    for (size_t k = i + 1; k < list.size(); ++k)
      if (!disjoint(list.at(i), list.at(k), place))
        fail_at(place, concat("oneOf: a value might have both alternatives ", i, " and ", k,
                              "; use anyOf, or a required property with a different const in each"));
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

/// The given values that have the type of the schema.
GrammarBuilder::Expression JsonSchema::values_of(const Json& values, const Json& schema, const std::string& place) {
  if (!values.is_array() || values.empty()) fail_at(place, "enum: expected a list of values");
  for (const auto& words :
       {std::span<const std::string_view>(kStringWords), std::span<const std::string_view>(kNumberWords),
        std::span<const std::string_view>(kObjectWords), std::span<const std::string_view>(kArrayWords)})
    if (has_one_of(schema, words))
      fail_at(place, "enum and const cannot be combined with keywords other than type");
  if (schema.contains("const") && schema.contains("enum")) {
    const Json& list = schema.at("enum");
    if (!list.is_array() || std::ranges::find(list.items(), values.at(0)) == list.items().end())
      return builder_.choice({});
  }
  std::vector<std::string> types;
  if (schema.contains("type")) types = types_of(schema);
  std::vector<Expression> parts;
  for (const Json& value : values.items()) {
    const std::string type = type_of(value);
    const bool fits = types.empty() || std::ranges::find(types, type) != types.end() ||
                      (is_whole(value) && std::ranges::find(types, "integer") != types.end());
    if (fits) parts.push_back(builder_.literal(value.dump()));
  }
  return builder_.choice(std::move(parts));
}

GrammarBuilder::Expression JsonSchema::of_type(const std::string& type, const Json& schema,
                                               const std::string& place) {
  if (type == "string") return string(schema, place);
  if (type == "integer" || type == "number") return number(schema, type == "integer", place);
  if (type == "object") return object(schema, place);
  if (type == "array") return array(schema, place);
  if (type == "boolean") return json_.boolean();
  if (type == "null") return json_.null();
  fail_at(place,
          concat("type: expected string, number, integer, object, array, boolean or null, found ", quote(type)));
}

/// Returns a keyword that is a number of characters or items.
int64_t JsonSchema::count(const Json& schema, const char* keyword, int64_t fallback,
                          const std::string& place) const {
  const Json* value = schema.find(keyword);
  if (!value) return fallback;
  if (!is_whole(*value) || value->get<double>() < 0)
    fail_at(place, concat(keyword, ": expected a number of 0 or more"));
  const auto most = static_cast<double>(GrammarBuilder::kMostRepetitions);
  if (value->get<double>() > most) {
    if (std::string_view(keyword).starts_with("max")) return GrammarBuilder::kMostRepetitions;
    fail_at(place, concat(keyword, ": expected at most ", GrammarBuilder::kMostRepetitions));
  }
  return value->get<int64_t>();
}

GrammarBuilder::Expression JsonSchema::string(const Json& schema, const std::string& place) {
  const int64_t min = count(schema, "minLength", 0, place),
                max = count(schema, "maxLength", GrammarBuilder::kUnbounded, place);
  if (max != GrammarBuilder::kUnbounded && max < min) return builder_.choice({});
  const bool bounded = min > 0 || max != GrammarBuilder::kUnbounded;
  const Json* pattern = schema.find("pattern");
  const Json* format = schema.find("format");
  const char* of_format = format && format->is_string() ? pattern_of_format(format->text()) : nullptr;
  if (pattern && !pattern->is_string()) fail_at(place, "pattern: expected a text");
  if ((pattern || of_format) && (bounded || (pattern && of_format)))
    fail_at(place, "pattern, format and lengths cannot be combined");
  const std::string where = source_ + ": at " + place;
  if (pattern) return json_.quoted(string_pattern(json_, pattern->text(), where));
  if (of_format) return json_.quoted(string_pattern(json_, of_format, where));
  return json_.string_of_length(min, max);
}

GrammarBuilder::Expression JsonSchema::number(const Json& schema, bool whole, const std::string& place) {
  for (const std::string_view word : kNumberWords) {
    const Json* value = schema.find(word);
    if (value && !value->is_number()) fail_at(place, concat(word, ": expected a number"));
  }
  if (const Json* step = schema.find("multipleOf")) {
    if (step->get<double>() != 1) fail_at(place, "multipleOf: only 1 is supported");
    whole = true;
  }
  const bool bounded = schema.contains("minimum") || schema.contains("maximum") ||
                       schema.contains("exclusiveMinimum") || schema.contains("exclusiveMaximum");
  if (!whole && !bounded) return json_.number();
  // Bounds in units of the last digit: none for integers, and enough to express the given bounds for numbers.
  int digits = whole ? 0 : 2;
  const auto scaled = [&](double value) { return value * std::pow(10.0, digits); };
  if (!whole) {
    for (const std::string_view word : kNumberWords) {
      const Json* value = schema.find(word);
      if (!value) continue;
      while (digits < kMostFractionDigits &&
             std::abs(std::round(scaled(value->get<double>())) - scaled(value->get<double>())) >
                 1e-9 * std::max(1.0, std::abs(scaled(value->get<double>()))))
        ++digits;
    }
  }
  const auto range_of = [&](double unit) -> std::pair<int64_t, int64_t> {
    const auto most = static_cast<double>(JsonText::kLargestInteger);
    double low = -most, high = most;
    const auto near = [](double value) {
      return std::abs(value - std::round(value)) < 1e-9 * std::max(1.0, std::abs(value));
    };
    if (const Json* value = schema.find("minimum")) {
      const double bound = value->get<double>() * unit;
      low = std::max(low, near(bound) ? std::round(bound) : std::ceil(bound));
    }
    if (const Json* value = schema.find("exclusiveMinimum")) {
      const double bound = value->get<double>() * unit;
      low = std::max(low, near(bound) ? std::round(bound) + 1 : std::ceil(bound));
    }
    if (const Json* value = schema.find("maximum")) {
      const double bound = value->get<double>() * unit;
      high = std::min(high, near(bound) ? std::round(bound) : std::floor(bound));
    }
    if (const Json* value = schema.find("exclusiveMaximum")) {
      const double bound = value->get<double>() * unit;
      high = std::min(high, near(bound) ? std::round(bound) - 1 : std::floor(bound));
    }
    if (low > high) return {1, 0};
    return {static_cast<int64_t>(low), static_cast<int64_t>(high)};
  };
  const auto [low, high] = range_of(1);
  std::vector<Expression> parts;
  if (low <= high) parts.push_back(json_.integers(low, high));
  if (!whole) {
    const auto [first, last] = range_of(std::pow(10.0, digits));
    if (first <= last) parts.push_back(json_.decimals(first, last, digits));
  }
  return builder_.choice(std::move(parts));
}

GrammarBuilder::Expression JsonSchema::object(const Json& schema, const std::string& place) {
  const Json* properties = schema.find("properties");
  if (properties && !properties->is_object()) fail_at(place, "properties: expected an object");
  std::set<std::string> required;
  if (const Json* list = schema.find("required")) {
    if (!list->is_array() || !std::ranges::all_of(list->items(), &Json::is_string))
      fail_at(place, "required: expected a list of names");
    for (const Json& name : list->items()) required.insert(name.text());
  }
  const int64_t least = count(schema, "minProperties", 0, place);
  if (least > std::ssize(required))
    fail_at(place, "minProperties: expected at most the number of required properties");
  if (schema.contains("maxProperties") &&
      (!properties || count(schema, "maxProperties", 0, place) < std::ssize(properties->fields())))
    fail_at(place, "maxProperties: expected at least the number of properties");
  struct Property {
    Expression member;
    bool required;
  };
  std::vector<Property> all;
  std::vector<std::string> names;
  if (properties) {
    for (const auto& [name, value] : properties->fields()) {
      if (name.size() > kMostNameBytes) fail_at(place, "a property has a name of more than 1,000 bytes");
      const Expression key = builder_.literal(Json(name).dump());
      all.push_back(
          {json_.member(key, translate(value, child(child(place, "properties"), name))), required.contains(name)});
      names.push_back(name);
    }
  }
  const Json* additional = schema.find("additionalProperties");
  const bool closed = additional && *additional == Json(false);
  for (const std::string& name : required) {
    if (std::ranges::find(names, name) != names.end()) continue;
    if (closed) return builder_.choice({});
    const Expression value =
        additional ? translate(*additional, child(place, "additionalProperties")) : json_.value();
    all.push_back({json_.member(builder_.literal(Json(name).dump()), value), true});
    names.push_back(name);
  }
  if (all.empty() && !additional) return json_.object();
  // rest[i][some]: the members from i on, where `some` tells whether there is one before them.
  Expression rest[2] = {builder_.empty(), builder_.empty()};
  if (additional && !closed) {
    const Expression more =
        json_.member(json_.key_except(names), translate(*additional, child(place, "additionalProperties")));
    const int32_t rule = builder_.declare("further members");
    builder_.define(rule, more);
    const Expression next = builder_.sequence({json_.comma(), builder_.call(rule)});
    rest[1] = builder_.repeat(next, 0, GrammarBuilder::kUnbounded);
    rest[0] = builder_.optional(builder_.sequence({builder_.call(rule), rest[1]}));
  }
  for (size_t i = all.size(); i-- > 0;) {
    const int32_t member = builder_.declare("member");
    builder_.define(member, all[i].member);
    const int32_t after = builder_.declare("members");
    builder_.define(after, rest[1]);
    const int32_t skipped = builder_.declare("members");
    builder_.define(skipped, rest[0]);
    const Expression first = builder_.sequence({builder_.call(member), builder_.call(after)});
    const Expression next = builder_.sequence({json_.comma(), builder_.call(member), builder_.call(after)});
    rest[0] = all[i].required ? first : builder_.choice({first, builder_.call(skipped)});
    rest[1] = all[i].required ? next : builder_.choice({next, builder_.call(after)});
  }
  return json_.braces(rest[0]);
}

GrammarBuilder::Expression JsonSchema::array(const Json& schema, const std::string& place) {
  if (schema.value("uniqueItems", Json()) == Json(true)) fail_at(place, "uniqueItems: not supported");
  const int64_t min = count(schema, "minItems", 0, place),
                max = count(schema, "maxItems", GrammarBuilder::kUnbounded, place);
  if (max != GrammarBuilder::kUnbounded && max < min) return builder_.choice({});
  const Json* prefix = schema.find("prefixItems");
  const Json* items = schema.find("items");
  if (items && items->is_array()) {  // of drafts before 2020-12
    prefix = items;
    items = schema.find("additionalItems");
  }
  if (prefix && (!prefix->is_array() || prefix->size() > kMostPrefixItems))
    fail_at(place, concat("prefixItems: expected a list of at most ", kMostPrefixItems, " schemas"));
  std::vector<Expression> first;
  if (prefix)
    for (size_t i = 0; i < prefix->size(); ++i) {
      const int32_t rule = builder_.declare("item");
      builder_.define(rule, translate(prefix->at(i), concat(place, "/prefixItems/", i)));
      first.push_back(builder_.call(rule));
    }
  const bool closed = items && *items == Json(false);
  const int32_t rule = builder_.declare("item");
  builder_.define(rule, items ? translate(*items, child(place, "items")) : json_.value());
  const Expression item = builder_.call(rule);
  const auto n = std::ssize(first);
  // Without a schema for them, items after those with a schema are left out unless so many are demanded.
  const int64_t most = closed || (prefix && !items) ? std::max(n, closed ? n : min) : GrammarBuilder::kUnbounded;
  const int64_t last = max == GrammarBuilder::kUnbounded    ? most
                       : most == GrammarBuilder::kUnbounded ? max
                                                            : std::min(max, most);
  if (last != GrammarBuilder::kUnbounded && last < min) return builder_.choice({});
  if (last == 0) return json_.brackets(builder_.empty());
  const auto nth = [&](int64_t i) { return i < n ? first[static_cast<size_t>(i)] : item; };
  // From the end: what may follow after i items.
  const int64_t head = last == GrammarBuilder::kUnbounded ? n : std::min(n, last);
  Expression rest = builder_.empty();
  if (last == GrammarBuilder::kUnbounded || last > head) {
    const Expression next = builder_.sequence({json_.comma(), item});
    const int64_t begin = std::max<int64_t>(head, 1);
    rest = builder_.repeat(next, std::max<int64_t>(0, min - begin),
                           last == GrammarBuilder::kUnbounded ? last : last - begin);
  }
  for (int64_t i = head; i-- > 1;) {
    const Expression more = builder_.sequence({json_.comma(), nth(i), rest});
    rest = i < min ? more : builder_.optional(more);
  }
  const Expression some = builder_.sequence({nth(0), rest});
  return json_.brackets(min > 0 ? some : builder_.optional(some));
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
