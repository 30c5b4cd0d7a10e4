#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fathom {

/// A method as text: `name` or `name:key=value,key=value`. A value that contains commas or is a spec is written in
/// parentheses: `layers:full=0+4,else=(window:sink=4,window=1k)`. Spaces around the parts are ignored.
struct Spec {
  std::string name;
  std::vector<std::pair<std::string, std::string>> values;  // in order, without their parentheses
  /// Returns the canonical text, which parses back to the same Spec.
  std::string to_string() const;
};

/// Parses a spec. Throws Error (usage) if `text` is malformed: empty name, missing `=`, duplicate key, unbalanced
/// parentheses, control characters, over 64 KiB. The error quotes the text and gives the byte position.
Spec parse_spec(std::string_view text);

/// One parameter of a method: its type, range and default. Tables set its members by name.
struct Parameter {
  enum class Type { kInt, kFloat, kBool, kString, kChoice, kSpec };
  std::string name{};
  Type type = Type::kInt;
  std::string default_value{};                      // as in a spec; empty: no default (optional parameter)
  std::string summary{};                            // one line
  std::optional<double> min{}, max{};               // inclusive, for kInt and kFloat
  std::vector<std::string> choices{};               // for kChoice
  std::vector<std::string> old_names{};             // aliases of the name
  std::map<std::string, std::string> old_values{};  // for kChoice: aliases of values, each with its current value
};
const char* name(Parameter::Type type);  // "int", "float", "bool", "string", "choice", "spec"

/// The checked parameters of one method: the given values, and defaults for the others. Functions throw Error if a
/// parameter has no value or a value of another type.
class Values {
 public:
  int64_t integer(std::string_view key) const;
  double number(std::string_view key) const;
  bool boolean(std::string_view key) const;
  const std::string& string(std::string_view key) const;
  bool has(std::string_view key) const;  // whether it was given or has a default

  /// A parameter that was given by an old name or value, such as "size" and "window", or "place=far" and
  /// "positions=clamped".
  struct Renamed {
    std::string old_text, text;
  };
  const std::vector<Renamed>& renamed() const { return renamed_; }

 private:
  friend Values check_values(const Spec& spec, const std::vector<Parameter>& parameters);
  std::map<std::string, std::string, std::less<>> values_;
  std::vector<Renamed> renamed_;
};

/// Checks the spec's values against `parameters` and adds defaults. Integers may be sizes (`4k`, `1m`). Throws
/// Error (usage) for a value out of range (with the parameter and its range), for an unknown key (with the nearest
/// ones), and for a parameter that is given twice, by two of its names.
Values check_values(const Spec& spec, const std::vector<Parameter>& parameters);

/// Parses digits with an optional binary suffix k, m or g in either case: "4k" → 4096, "1m" → 1048576. Returns
/// nothing if the text is not such a number or exceeds int64.
std::optional<int64_t> parse_size(std::string_view text);

/// Returns up to `count` names nearest to `name` by edit distance, best first. Names too different for a typing
/// error are omitted.
std::vector<std::string> nearest_names(std::string_view name, const std::vector<std::string>& names,
                                       size_t count = 3);

}  // namespace fathom
