// References between parts of a schema, and schemas that hold together.
#include <algorithm>
#include <cstdlib>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/format.h"
#include "decode/grammar/json_schema.h"
#include "decode/grammar/json_schema_words.h"

namespace fathom {

using namespace json_schema;

namespace {

constexpr int kMostReferences = 64;

}  // namespace

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

}  // namespace fathom
