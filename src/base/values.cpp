#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>

#include "base/error.h"
#include "base/format.h"
#include "base/spec.h"

namespace fathom {

namespace {

/// Parses digits with an optional minus sign and size suffix.
std::optional<int64_t> parse_integer(std::string_view text) {
  const bool negative = text.starts_with('-');
  const std::optional<int64_t> size = parse_size(text.substr(negative));
  return size && negative ? -*size : size;
}

std::optional<double> parse_number(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) return std::nullopt;
  return value;
}

std::optional<bool> parse_bool(std::string_view text) {
  std::string word(text);
  for (char& c : word) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  if (word == "true" || word == "1" || word == "on" || word == "yes") return true;
  if (word == "false" || word == "0" || word == "off" || word == "no") return false;
  return std::nullopt;
}

bool in_range(double value, const Parameter& parameter) {
  return !(parameter.min && value < *parameter.min) && !(parameter.max && value > *parameter.max);
}

/// Returns the shortest text of a bound: 4096, 0.5. Integers are printed as digits, not as 4.1e+03.
std::string bound(double value) {
  char text[64];
  const auto [end, error] = std::to_chars(text, text + sizeof text, value);
  const bool whole = std::abs(value) < 1e15 && value == std::floor(value);
  return whole ? std::to_string(static_cast<int64_t>(value)) : std::string(text, end);
}

std::string range(const Parameter& parameter) {
  if (parameter.min && parameter.max) return concat(" from ", bound(*parameter.min), " to ", bound(*parameter.max));
  if (parameter.min) return concat(" of at least ", bound(*parameter.min));
  if (parameter.max) return concat(" of at most ", bound(*parameter.max));
  return "";
}

/// Returns what a value of this parameter must be; empty if `value` is valid.
std::string expectation(const Parameter& parameter, std::string_view value) {
  switch (parameter.type) {
    case Parameter::Type::kInt: {
      const std::optional<int64_t> integer = parse_integer(value);
      if (integer && in_range(static_cast<double>(*integer), parameter)) return "";
      return "an integer" + range(parameter);
    }
    case Parameter::Type::kFloat: {
      const std::optional<double> number = parse_number(value);
      if (number && in_range(*number, parameter)) return "";
      return "a finite number" + range(parameter);
    }
    case Parameter::Type::kBool:
      return parse_bool(value) ? "" : "true or false";
    case Parameter::Type::kChoice:
      if (std::find(parameter.choices.begin(), parameter.choices.end(), value) != parameter.choices.end())
        return "";
      return "one of " + comma_list(parameter.choices);
    case Parameter::Type::kString:
    case Parameter::Type::kSpec:
      return "";
  }
  return "";
}

void check_value(const Spec& spec, const Parameter& parameter, const std::string& value) {
  const std::string expected = expectation(parameter, value);
  if (!expected.empty()) {
    fail_usage(quote(spec.name), ": ", parameter.name, " must be ", expected, ", found ", quote(value));
  }
  if (parameter.type == Parameter::Type::kSpec) {
    try {
      parse_spec(value);
    } catch (const Error& error) {
      fail_usage(quote(spec.name), ": ", parameter.name, ": ", error.what());
    }
  }
}

const Parameter* find_parameter(const std::string& key, const std::vector<Parameter>& parameters) {
  const auto has_name = [&key](const Parameter& parameter) {
    return parameter.name == key || std::ranges::count(parameter.old_names, key) > 0;
  };
  const auto found = std::ranges::find_if(parameters, has_name);
  return found == parameters.end() ? nullptr : &*found;
}

[[noreturn]] void fail_unknown_key(const Spec& spec, const std::string& key,
                                   const std::vector<Parameter>& parameters) {
  std::vector<std::string> known;
  known.reserve(parameters.size());
  for (const Parameter& parameter : parameters) known.push_back(parameter.name);
  if (known.empty()) fail_usage(quote(spec.name), " has no parameters, found ", quote(key));
  const std::vector<std::string> nearest = nearest_names(key, known);
  const std::string hint = nearest.empty() ? "." : concat("; did you mean ", comma_list(nearest), "?");
  fail_usage(quote(spec.name), ": unknown parameter ", quote(key), hint, " Known: ", comma_list(known));
}

}  // namespace

const char* name(Parameter::Type type) {
  switch (type) {
    case Parameter::Type::kInt:
      return "int";
    case Parameter::Type::kFloat:
      return "float";
    case Parameter::Type::kBool:
      return "bool";
    case Parameter::Type::kString:
      return "string";
    case Parameter::Type::kChoice:
      return "choice";
    case Parameter::Type::kSpec:
      return "spec";
  }
  return "unknown";
}

int64_t Values::integer(std::string_view key) const {
  const std::optional<int64_t> value = parse_integer(string(key));
  if (!value) fail("parameter ", quote(key), " is not an integer: ", quote(string(key)));
  return *value;
}

double Values::number(std::string_view key) const {
  const std::optional<double> value = parse_number(string(key));
  if (!value) fail("parameter ", quote(key), " is not a number: ", quote(string(key)));
  return *value;
}

bool Values::boolean(std::string_view key) const {
  const std::optional<bool> value = parse_bool(string(key));
  if (!value) fail("parameter ", quote(key), " is not a bool: ", quote(string(key)));
  return *value;
}

const std::string& Values::string(std::string_view key) const {
  const auto found = values_.find(key);
  if (found == values_.end()) fail("parameter ", quote(key), " has no value");
  return found->second;
}

bool Values::has(std::string_view key) const { return values_.find(key) != values_.end(); }

Values check_values(const Spec& spec, const std::vector<Parameter>& parameters) {
  Values checked;
  for (const auto& [key, given] : spec.values) {
    const Parameter* parameter = find_parameter(key, parameters);
    if (!parameter) fail_unknown_key(spec, key, parameters);
    const auto old_value = parameter->old_values.find(given);
    const bool renamed_value = old_value != parameter->old_values.end();
    const std::string& value = renamed_value ? old_value->second : given;
    check_value(spec, *parameter, value);
    if (!checked.values_.emplace(parameter->name, value).second) {
      fail_usage(quote(spec.name), ": ", parameter->name, " is given twice: ", comma_list(parameter->old_names),
                 parameter->old_names.size() == 1 ? " is its old name" : " are its old names");
    }
    if (renamed_value) {
      checked.renamed_.push_back({key + "=" + given, parameter->name + "=" + value});
    } else if (key != parameter->name) {
      checked.renamed_.push_back({key, parameter->name});
    }
  }
  for (const Parameter& parameter : parameters) {
    if (parameter.default_value.empty() || checked.has(parameter.name)) continue;
    check_value(spec, parameter, parameter.default_value);
    checked.values_[parameter.name] = parameter.default_value;
  }
  return checked;
}

}  // namespace fathom
