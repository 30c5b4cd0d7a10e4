#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/error.h"

namespace fathom {

/// Thrown for a malformed JSON text, and for a value of another type than expected.
class JsonError : public Error {
 public:
  using Error::Error;
};

/// A JSON value; objects keep the order of their fields. nlohmann-json parses and prints. Only json.cpp includes
/// it, because it takes longer to compile than the rest of a typical source file.
class Json {
 public:
  using Array = std::vector<Json>;
  using Object = std::vector<std::pair<std::string, Json>>;
  /// Deepest nesting that parsing accepts, so that recursion over a value is bounded.
  static constexpr int kMaxDepth = 500;

  Json() = default;
  Json(std::nullptr_t) {}
  template <std::same_as<bool> T>
  Json(T value) : value_(value) {}
  template <std::signed_integral T>
  Json(T value) : value_(static_cast<int64_t>(value)) {}
  template <std::unsigned_integral T>
  requires(!std::same_as<T, bool>) Json(T value) : value_(static_cast<uint64_t>(value)) {}
  Json(double value) : value_(value) {}
  Json(const char* value) : value_(std::string(value)) {}
  Json(std::string_view value) : value_(std::string(value)) {}
  Json(std::string value) : value_(std::move(value)) {}
  Json(Array items) : value_(std::move(items)) {}
  Json(Object fields) : value_(std::move(fields)) {}
  template <class T>
  requires(!std::same_as<T, Json> && std::constructible_from<Json, const T&>) Json(const std::vector<T>& items)
      : value_(Array(items.begin(), items.end())) {}
  /// Makes an object if every item is an array of two that begins with a string, as in {{"a", 1}, {"b", 2}}; else
  /// an array.
  Json(std::initializer_list<Json> items);

  static Json object() { return Json(Object()); }
  static Json array() { return Json(Array()); }
  static Json array(std::initializer_list<Json> items) { return Json(Array(items)); }

  /// Parses a JSON text. If several fields have the same name, the last one is used. Throws JsonError, with line
  /// and column, if the text is malformed or continues after the value, and JsonError if it is nested deeper than
  /// kMaxDepth.
  static Json parse(std::string_view text);
  /// Like parse(), but returns null where parse() throws.
  static Json parse_or_null(std::string_view text);
  /// Parses a JSON array and calls `visit` with each item, without keeping all items in memory. Throws JsonError,
  /// also if the text is not an array.
  static void parse_items(std::string_view text, const std::function<void(const Json& item)>& visit);

  /// Returns the JSON text, on one line if indent < 0. Invalid UTF-8 is replaced by U+FFFD, numbers that are not
  /// finite by null.
  std::string dump(int indent = -1) const;

  bool is_null() const { return holds<std::monostate>(); }
  bool is_boolean() const { return holds<bool>(); }
  bool is_number_unsigned() const { return holds<uint64_t>(); }
  bool is_number_integer() const { return holds<int64_t>() || holds<uint64_t>(); }
  bool is_number() const { return is_number_integer() || holds<double>(); }
  bool is_string() const { return holds<std::string>(); }
  bool is_array() const { return holds<Array>(); }
  bool is_object() const { return holds<Object>(); }

  /// Number of items of an array or fields of an object; 0 for null, 1 for any other value.
  size_t size() const;
  bool empty() const { return size() == 0; }

  /// Returns the value as a bool, number, std::string or vector of these. Numbers convert to every arithmetic type
  /// but bool; conversion to an integer truncates. Throws JsonError if the value has another type.
  template <class T>
  T get() const;
  /// Returns the string. Throws JsonError if the value has another type.
  const std::string& text() const;
  /// Return the items of an array and the fields of an object. Throw JsonError if the value has another type. On a
  /// temporary they return a copy, so that a loop over the result is safe.
  const Array& items() const&;
  Array& items() & { return const_cast<Array&>(std::as_const(*this).items()); }
  Array items() && { return std::move(items()); }
  const Object& fields() const&;
  Object fields() && { return std::as_const(*this).fields(); }

  bool contains(std::string_view key) const { return find(key) != nullptr; }
  /// Returns the field of an object; null if it is absent, or if this is not an object.
  const Json* find(std::string_view key) const;
  Json* find(std::string_view key) { return const_cast<Json*>(std::as_const(*this).find(key)); }
  /// Returns the field of an object, or `fallback` if it is absent.
  template <class T>
  T value(std::string_view key, T fallback) const {
    const Json* found = find(key);
    return found ? found->get<T>() : fallback;
  }
  std::string value(std::string_view key, const char* fallback) const { return value(key, std::string(fallback)); }
  /// Returns the field or item. Throws JsonError if it is absent.
  const Json& at(std::string_view key) const;
  const Json& at(size_t index) const;

  /// Returns the field; adds it as null if it is absent. A null value becomes an empty object first. Throws
  /// JsonError if this is another type of value.
  Json& operator[](std::string_view key);
  const Json& operator[](std::string_view key) const { return at(key); }
  template <std::integral T>
  const Json& operator[](T index) const {
    return at(static_cast<size_t>(index));
  }
  template <std::integral T>
  Json& operator[](T index) {
    return const_cast<Json&>(at(static_cast<size_t>(index)));
  }
  /// Appends an item to an array. A null value becomes an empty array first. Throws JsonError if this is another
  /// type of value.
  void push_back(Json item);
  /// Removes a field. Does nothing if it is absent, or if this is not an object.
  void erase(std::string_view key);
  /// Copies all fields of `other` into this object, replacing those of the same name.
  void update(const Json& other);

  bool operator==(const Json& other) const;

 private:
  template <class T>
  bool holds() const {
    return std::holds_alternative<T>(value_);
  }
  [[noreturn]] void fail_type(std::string_view expected) const;
  int64_t integer() const;
  double number() const;

  std::variant<std::monostate, bool, int64_t, uint64_t, double, std::string, Array, Object> value_;
};

namespace json_detail {
template <class T>
inline constexpr bool kIsVector = false;
template <class T>
inline constexpr bool kIsVector<std::vector<T>> = true;
}  // namespace json_detail

template <class T>
T Json::get() const {
  if constexpr (std::same_as<T, Json>) {
    return *this;
  } else if constexpr (std::same_as<T, std::string>) {
    return text();
  } else if constexpr (std::same_as<T, bool>) {
    if (const bool* value = std::get_if<bool>(&value_)) return *value;
    fail_type("true or false");
  } else if constexpr (std::integral<T>) {
    return static_cast<T>(integer());
  } else if constexpr (std::floating_point<T>) {
    return static_cast<T>(number());
  } else {
    static_assert(json_detail::kIsVector<T>);
    T values;
    for (const Json& item : items()) values.push_back(item.get<typename T::value_type>());
    return values;
  }
}

}  // namespace fathom
