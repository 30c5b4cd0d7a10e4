#include <algorithm>
#include <limits>

#include "base/error.h"
#include "tokens/jinja/library.h"

namespace fathom::jinja {
namespace {

int64_t count_or(const Value& value, int64_t fallback) {
  return value.is_undefined() || value.is_none() ? fallback : value.integer();
}

/// Splits at a separator, or at runs of white space if none is given; at most `limit` times unless negative.
Value split(const std::string& text, const Value& separator_value, int64_t limit, Budget& budget) {
  std::vector<Value> parts;
  budget.spend_text(text.size());
  std::string_view rest = text;
  const auto add = [&](std::string_view part) {
    budget.spend(1);
    parts.emplace_back(part);
  };
  if (separator_value.is_undefined() || separator_value.is_none()) {
    constexpr std::string_view kSpace = " \t\n\r\v\f";
    while (true) {
      rest.remove_prefix(std::min(rest.find_first_not_of(kSpace), rest.size()));
      if (rest.empty()) break;
      const bool last = limit >= 0 && static_cast<int64_t>(parts.size()) >= limit;
      const size_t end =
          last ? rest.find_last_not_of(kSpace) + 1 : std::min(rest.find_first_of(kSpace), rest.size());
      add(rest.substr(0, end));
      rest.remove_prefix(last ? rest.size() : end);
    }
    return Value::make_list(std::move(parts));
  }
  const std::string& separator = expect_text(separator_value, "split");
  if (separator.empty()) fail("split: expected a separator that is not empty");
  for (size_t at; limit != 0 && (at = rest.find(separator)) != std::string_view::npos; --limit) {
    add(rest.substr(0, at));
    rest.remove_prefix(at + separator.size());
  }
  add(rest);
  return Value::make_list(std::move(parts));
}

/// Splits from the right at a separator, at most `limit` times unless negative.
Value split_right(const std::string& text, const Value& separator_value, int64_t limit, Budget& budget) {
  const std::string& separator = expect_text(separator_value, "rsplit");
  if (separator.empty()) fail("rsplit: the separator is empty");
  std::vector<Value> parts;
  budget.spend_text(text.size());
  std::string_view rest = text;
  for (size_t at; limit != 0 && (at = rest.rfind(separator)) != std::string_view::npos; --limit) {
    budget.spend(1);
    parts.emplace_back(rest.substr(at + separator.size()));
    rest = rest.substr(0, at);
  }
  parts.emplace_back(rest);
  std::ranges::reverse(parts);
  return Value::make_list(std::move(parts));
}

bool affix_matches(const std::string& text, const Value& affix, bool at_start) {
  if (affix.list()) {
    return std::ranges::any_of(affix.list()->items,
                               [&](const Value& one) { return affix_matches(text, one, at_start); });
  }
  const std::string& part = expect_text(affix, at_start ? "startswith" : "endswith");
  return at_start ? text.starts_with(part) : text.ends_with(part);
}

int64_t occurrences(std::string_view text, std::string_view part) {
  if (part.empty()) return static_cast<int64_t>(characters(text).size()) + 1;
  int64_t count = 0;
  for (size_t at = 0; (at = text.find(part, at)) != std::string_view::npos; at += part.size()) ++count;
  return count;
}

bool all_digits(const std::string& text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

Value lines(const std::string& text, Budget& budget) {
  std::vector<Value> parts = items_of(split(text, "\n", -1, budget), budget);
  if (parts.back().text()->empty()) parts.pop_back();
  return Value::make_list(std::move(parts));
}

std::optional<Value> call_text_method(const std::string& text, std::string_view name, const Arguments& arguments,
                                      Budget& budget) {
  const auto bound = [&](std::initializer_list<std::string_view> names) { return bind(name, arguments, names); };
  budget.spend_text(text.size());
  if (name == "strip") return stripped(text, bound({"chars"})[0]);
  if (name == "lstrip") return stripped(text, bound({"chars"})[0], true, false);
  if (name == "rstrip") return stripped(text, bound({"chars"})[0], false, true);
  if (name == "upper") return bound({}), Value(upper(text));
  if (name == "lower") return bound({}), Value(lower(text));
  if (name == "title") return bound({}), Value(titled(text));
  if (name == "capitalize") return bound({}), Value(capitalized(text));
  if (name == "isdigit") return bound({}), Value(all_digits(text));
  if (name == "splitlines") return bound({}), lines(text, budget);
  if (name == "startswith") return affix_matches(text, bound({"prefix"})[0], true);
  if (name == "endswith") return affix_matches(text, bound({"suffix"})[0], false);
  if (name == "split" || name == "rsplit") {
    const std::vector<Value> given = bound({"sep", "maxsplit"});
    return (name == "split" ? split : split_right)(text, given[0], count_or(given[1], -1), budget);
  }
  if (name == "replace") {
    const std::vector<Value> given = bound({"old", "new", "count"});
    return replaced(text, expect_text(given[0], name), expect_text(given[1], name), count_or(given[2], -1), budget);
  }
  if (name == "join") {
    Arguments separator;
    separator.positional.emplace_back(text);
    return apply_filter("join", bound({"iterable"})[0], separator, budget);
  }
  if (name == "count") return occurrences(text, expect_text(bound({"sub"})[0], name));
  if (name == "find") {
    const size_t at = text.find(expect_text(bound({"sub"})[0], name));
    if (at == std::string::npos) return Value(int64_t{-1});
    return static_cast<int64_t>(characters(std::string_view(text).substr(0, at)).size());
  }
  return std::nullopt;
}

std::optional<Value> call_dict_method(const Value::Dict& dict, std::string_view name, const Arguments& arguments,
                                      Budget& budget) {
  std::vector<Value> result;
  if (name == "get") {
    const std::vector<Value> given = bind(name, arguments, {"key", "default"});
    if (const Value* found = dict.find(given[0])) return *found;
    return given[1].is_undefined() ? Value::none() : given[1];
  }
  if (name != "items" && name != "keys" && name != "values") return std::nullopt;
  bind(name, arguments, {});
  budget.spend(static_cast<int64_t>(dict.entries.size()));
  for (const auto& [key, value] : dict.entries) {
    result.push_back(name == "items" ? Value::make_list({key, value}, true) : name == "keys" ? key : value);
  }
  return Value::make_list(std::move(result));
}

}  // namespace

std::optional<Value> call_method(const Value& object, std::string_view name, const Arguments& arguments,
                                 Budget& budget) {
  if (object.text()) return call_text_method(*object.text(), name, arguments, budget);
  if (object.dict() && !object.dict()->is_namespace)
    return call_dict_method(*object.dict(), name, arguments, budget);
  return std::nullopt;
}

}  // namespace fathom::jinja
