#pragma once

#include <charconv>
#include <concepts>
#include <cstdio>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>

namespace fathom {

/// The only exception type of the engine. Its text says what is wrong, where (file, field, byte), what was expected
/// and what was found.
class Error : public std::runtime_error {
 public:
  enum class Kind { kFailed, kUsage, kInterrupted, kOutOfMemory };
  explicit Error(const std::string& what, Kind kind = Kind::kFailed) : std::runtime_error(what), kind_(kind) {}
  Kind kind() const { return kind_; }

 private:
  Kind kind_;
};

/// One part of a text: a string, a character or a number. It refers to the string it was made from. `concat` uses
/// it instead of streams, because it is called nearly everywhere and streams are slow to compile.
class TextPart {
 public:
  TextPart(std::string_view text) : text_(text) {}
  TextPart(const std::string& text) : text_(text) {}
  TextPart(const char* text) : text_(text) {}
  TextPart(char c) : digits_{c}, text_(digits_, 1) {}
  TextPart(double number)  // formatted with %g
      : text_(digits_, static_cast<size_t>(std::snprintf(digits_, sizeof digits_, "%g", number))) {}
  template <std::integral T>
  TextPart(T number) {
    if constexpr (std::same_as<T, bool>) {
      digits_[0] = number ? '1' : '0';
      text_ = {digits_, 1};
    } else {
      const char* end = std::to_chars(digits_, digits_ + sizeof digits_, number).ptr;
      text_ = {digits_, static_cast<size_t>(end - digits_)};
    }
  }
  TextPart(const TextPart&) = delete;
  TextPart& operator=(const TextPart&) = delete;

  std::string_view text() const { return text_; }

 private:
  char digits_[24];
  std::string_view text_;
};

/// Returns the parts joined into one string.
std::string join_parts(std::initializer_list<TextPart> parts);
/// Returns the arguments joined into one string.
template <class... Parts>
std::string concat(const Parts&... parts) {
  return join_parts({TextPart(parts)...});
}

/// Throws Error with the joined parts as its text.
[[noreturn]] void throw_error(Error::Kind kind, std::initializer_list<TextPart> parts);

/// Throws Error of kind kFailed with the joined parts as its text.
template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  throw_error(Error::Kind::kFailed, {TextPart(parts)...});
}

/// Throws Error of kind kUsage with the joined parts as its text: the user requested something that does not exist
/// or is invalid.
template <class... Parts>
[[noreturn]] void fail_usage(const Parts&... parts) {
  throw_error(Error::Kind::kUsage, {TextPart(parts)...});
}

}  // namespace fathom
