#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tokens/jinja/value.h"

namespace fathom::jinja {

/// The work a template may still do, so that none runs or grows without end.
class Budget {
 public:
  explicit Budget(int64_t steps) : left_(steps) {}
  /// Throws Error when the work is used up.
  void spend(int64_t steps);
  /// For making a text of so many bytes.
  void spend_text(size_t bytes) { spend(static_cast<int64_t>(bytes / 16)); }

 private:
  int64_t left_;
};

/// All throw Error (without a line) for a name that is not known, or arguments that do not fit.
Value apply_filter(std::string_view name, const Value& subject, const Arguments& arguments, Budget& budget);
bool apply_test(std::string_view name, const Value& subject, const Arguments& arguments, Budget& budget);
/// A method of a string or dict; nothing if it has none of that name.
std::optional<Value> call_method(const Value& object, std::string_view name, const Arguments& arguments,
                                 Budget& budget);

/// left `symbol` right, for + - ~ * / // % **.
Value apply_operator(std::string_view symbol, const Value& left, const Value& right, Budget& budget);
/// left `symbol` right, for == != < <= > >= in, not in.
bool compare(std::string_view symbol, const Value& left, const Value& right, Budget& budget);
Value negative(const Value& value);

/// object.name or object[key]; undefined if there is none. Throws Error if `object` is undefined.
Value get_item(const Value& object, const Value& key);
/// object[from:to:step]; bounds are integers or none.
Value slice(const Value& object, const Value& from, const Value& to, const Value& step, Budget& budget);
/// What a loop over `value` meets: items, keys, characters. Throws Error if it has none.
std::vector<Value> items_of(const Value& value, Budget& budget);

/// The arguments by the parameters they are for, undefined where left out. Throws Error if there are too many, or
/// of another name.
std::vector<Value> bind(std::string_view function, const Arguments& arguments,
                        std::initializer_list<std::string_view> parameters);
/// Throws Error if `value` is no string; `where` is for the message.
const std::string& expect_text(const Value& value, std::string_view where);

std::vector<std::string_view> characters(std::string_view text);
std::string upper(const std::string& text);
std::string lower(const std::string& text);
std::string capitalized(const std::string& text);
std::string titled(const std::string& text);
/// Without white space, or without the characters of `set`, at the ends asked for.
std::string stripped(std::string_view text, const Value& set, bool left = true, bool right = true);
/// count < 0: all.
std::string replaced(std::string_view text, std::string_view old, std::string_view with, int64_t count,
                     Budget& budget);

}  // namespace fathom::jinja
