// The values of each type of a schema.
#include <algorithm>
#include <cmath>
#include <set>
#include <span>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/format.h"
#include "decode/grammar/json_schema.h"
#include "decode/grammar/json_schema_words.h"
#include "decode/grammar/string_pattern.h"

namespace fathom {

using namespace json_schema;

namespace {

constexpr size_t kMostNameBytes = 1000;
constexpr int kMostFractionDigits = 6;
constexpr size_t kMostPrefixItems = 1000;

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

}  // namespace

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
  // Without a schema for them, items after those with a schema are left out unless minItems demands them.
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

}  // namespace fathom
