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

/// What is wrong with a JSON text, or with a value of another type than was expected.
class JsonError : public Error {
 public:
  using Error::Error;
};

/// A JSON value; objects keep the order of their fields. Parsing and printing are nlohmann-json's, which only
/// json.cpp includes: in every file it would take longer to compile than the rest of it.
class Json {
 public:
  using Array = std::vector<Json>;
  using Object = std::vector<std::pair<std::string, Json>>;
  /// Deeper nesting is refused when parsing, so that recursion over a value is bounded.
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
  /// An object if every item is an array of two that begins with a string, {{"a", 1}, {"b", 2}}; else an array.
  Json(std::initializer_list<Json> items);

  static Json object() { return Json(Object()); }
  static Json array() { return Json(Array()); }
  static Json array(std::initializer_list<Json> items) { return Json(Array(items)); }

  /// Throws JsonError that names line and column: no JSON, text after the value, or nested deeper than kMaxDepth.
  /// Of fields with the same name the last one counts.
  static Json parse(std::string_view text);
  /// As parse(), but null for what is no JSON.
  static Json parse_or_null(std::string_view text);
  /// Visits the items of the array that the text is, one by one, without keeping them all.
  static void parse_items(std::string_view text, const std::function<void(const Json& item)>& visit);

  /// On one line if indent < 0; bytes that are not UTF-8 are replaced by U+FFFD.
  std::string dump(int indent = -1) const;

  bool is_null() const { return holds<std::monostate>(); }
  bool is_boolean() const { return holds<bool>(); }
  bool is_number_unsigned() const { return holds<uint64_t>(); }
  bool is_number_integer() const { return holds<int64_t>() || holds<uint64_t>(); }
  bool is_number() const { return is_number_integer() || holds<double>(); }
  bool is_string() const { return holds<std::string>(); }
  bool is_array() const { return holds<Array>(); }
  bool is_object() const { return holds<Object>(); }

  /// Items of an array, fields of an object, 0 of null, 1 of anything else.
  size_t size() const;
  bool empty() const { return size() == 0; }

  /// The value as a bool, number, std::string or vector of these. Throws JsonError if it has another type; a whole
  /// number converts to any arithmetic type but bool.
  template <class T>
  T get() const;
  const std::string& text() const;
  // Of a temporary by value, so that a loop over them is safe.
  const Array& items() const&;
  Array& items() & { return const_cast<Array&>(std::as_const(*this).items()); }
  Array items() && { return std::move(items()); }
  const Object& fields() const&;
  Object fields() && { return std::as_const(*this).fields(); }

  bool contains(std::string_view key) const { return find(key) != nullptr; }
  /// The field of an object; null if there is none, or if this is no object.
  const Json* find(std::string_view key) const;
  Json* find(std::string_view key) { return const_cast<Json*>(std::as_const(*this).find(key)); }
  /// The field of an object, if there is one.
  template <class T>
  T value(std::string_view key, T otherwise) const {
    const Json* found = find(key);
    return found ? found->get<T>() : otherwise;
  }
  std::string value(std::string_view key, const char* otherwise) const {
    return value(key, std::string(otherwise));
  }
  /// Throws JsonError if there is none.
  const Json& at(std::string_view key) const;
  const Json& at(size_t index) const;

  /// Adds the field, null, if there is none; null becomes an object.
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
  /// Null becomes an array.
  void push_back(Json item);
  void erase(std::string_view key);
  /// Sets all fields of another object.
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
