#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fathom {

/// A method as text: `name` or `name:key=value,key=value`. A value that itself holds commas or is a spec stands in
/// parentheses: `layers:full=0+4,else=(window:sink=4,window=1k)`. Whitespace around parts is dropped.
struct Spec {
  std::string name;
  std::vector<std::pair<std::string, std::string>> values;  // in order; parentheses removed
  /// The canonical text, which parses back to the same Spec.
  std::string to_string() const;
};

/// Throws Error (usage) that quotes `text` and names the position when it is malformed (empty name, missing `=`,
/// key twice, unbalanced parentheses, control characters, over 64 KiB).
Spec parse_spec(std::string_view text);

/// One parameter of a method: its type, range and default. Tables name the members they set.
struct Parameter {
  enum class Type { kInt, kFloat, kBool, kString, kChoice, kSpec };
  std::string name{};
  Type type = Type::kInt;
  std::string default_value{};           // as the user would write it; empty = none (optional parameter)
  std::string summary{};                 // one line
  std::optional<double> min{}, max{};    // inclusive, for kInt and kFloat
  std::vector<std::string> choices{};    // for kChoice
  std::vector<std::string> old_names{};  // still accepted
  std::map<std::string, std::string> old_values{};  // for kChoice: still accepted, by the value each stands for now
};
const char* name(Parameter::Type type);  // "int", "float", "bool", "string", "choice", "spec"

/// The parameters of one method, checked: given values, defaults for the rest.
class Values {
 public:
  int64_t integer(std::string_view key) const;
  double number(std::string_view key) const;
  bool boolean(std::string_view key) const;
  const std::string& string(std::string_view key) const;
  bool has(std::string_view key) const;  // given or with a default

  /// A parameter that was given by an old name or value: "size" and "window", or "positions=clamped" and "positions=clamped".
  struct Renamed {
    std::string old_text, text;
  };
  const std::vector<Renamed>& renamed() const { return renamed_; }

 private:
  friend Values check_values(const Spec& spec, const std::vector<Parameter>& parameters);
  std::map<std::string, std::string, std::less<>> values_;
  std::vector<Renamed> renamed_;
};

/// Checks the spec's values against `parameters` and fills in defaults. Integers accept sizes (`4k`, `1m`). Throws
/// Error (usage) that names the parameter, its range, and for an unknown key the nearest ones, or if a parameter is
/// given twice, by two of its names.
Values check_values(const Spec& spec, const std::vector<Parameter>& parameters);

/// "4k" → 4096, "1m" → 1048576, "2g", plain digits; binary multiples, any case. Empty when it is not such a number
/// or exceeds int64.
std::optional<int64_t> parse_size(std::string_view text);

/// The (at most `count`) names nearest to `name` by edit distance, best first; those too far to be a slip of the
/// pen are left out.
std::vector<std::string> nearest_names(std::string_view name, const std::vector<std::string>& names,
                                       size_t count = 3);

}  // namespace fathom
