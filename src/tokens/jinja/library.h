#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tokens/jinja/value.h"

namespace fathom::jinja {

/// Limits the number of steps of a template, and with it its run time and memory.
class Budget {
 public:
  explicit Budget(int64_t steps) : left_(steps) {}
  /// Throws Error when the limit is exceeded.
  void spend(int64_t steps);
  /// Spends the steps for creating a text of `bytes` bytes: one per 16 bytes.
  void spend_text(size_t bytes) { spend(static_cast<int64_t>(bytes / 16)); }

 private:
  int64_t left_;
};

// All functions throw Error (without a line) for an unknown name or unsuitable arguments.

/// Applies a filter or a test by name.
Value apply_filter(std::string_view name, const Value& subject, const Arguments& arguments, Budget& budget);
bool apply_test(std::string_view name, const Value& subject, const Arguments& arguments, Budget& budget);
/// Calls a method of a string or dict. Returns nothing if it has no method of that name.
std::optional<Value> call_method(const Value& object, std::string_view name, const Arguments& arguments,
                                 Budget& budget);

/// Returns left `symbol` right, for + - ~ * / // % **.
Value apply_operator(std::string_view symbol, const Value& left, const Value& right, Budget& budget);
/// Returns left `symbol` right, for == != < <= > >= in, not in.
bool compare(std::string_view symbol, const Value& left, const Value& right, Budget& budget);
Value negative(const Value& value);

/// Returns object.key or object[key], or an undefined value if there is none. Throws Error if `object` is
/// undefined.
Value get_item(const Value& object, const Value& key);
/// Returns object[from:to:step]. Each bound is an integer, none or undefined.
Value slice(const Value& object, const Value& from, const Value& to, const Value& step, Budget& budget);
/// Returns what a loop over `value` visits: the items of a list, the keys of a dict, the characters of a string,
/// nothing for an undefined value. Throws Error for other values.
std::vector<Value> items_of(const Value& value, Budget& budget);

/// Returns one value per parameter, undefined for an omitted argument. Throws Error for too many or unknown
/// arguments. function: for messages.
std::vector<Value> bind(std::string_view function, const Arguments& arguments,
                        std::initializer_list<std::string_view> parameters);
/// Returns the text of `value`. Throws Error if it is not a string. where: for the message.
const std::string& expect_text(const Value& value, std::string_view where);

/// Splits a text into characters. A byte that is not UTF-8 is one character.
std::vector<std::string_view> characters(std::string_view text);
std::string upper(const std::string& text);
std::string lower(const std::string& text);
std::string capitalized(const std::string& text);
std::string titled(const std::string& text);
/// Removes white space, or the characters of `set` if given, at the left and right end.
std::string stripped(std::string_view text, const Value& set, bool left = true, bool right = true);
/// Replaces the first `count` occurrences of `old`; count < 0: all.
std::string replaced(std::string_view text, std::string_view old, std::string_view with, int64_t count,
                     Budget& budget);

}  // namespace fathom::jinja
