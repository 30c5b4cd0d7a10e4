#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace fathom {

/// The one exception of the engine. Its text says what is wrong, where (file, field, byte), what was expected and
/// what was found.
class Error : public std::runtime_error {
 public:
  enum class Kind { kFailed, kUsage, kInterrupted };
  explicit Error(const std::string& what, Kind kind = Kind::kFailed) : std::runtime_error(what), kind_(kind) {}
  Kind kind() const { return kind_; }

 private:
  Kind kind_;
};

/// The parts written one after the other with `<<`.
template <class... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

/// Throws Error with the parts as its text.
template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  throw Error(concat(parts...));
}

/// Throws Error of kind kUsage: the caller asked for something that does not exist or does not fit.
template <class... Parts>
[[noreturn]] void fail_usage(const Parts&... parts) {
  throw Error(concat(parts...), Error::Kind::kUsage);
}

}  // namespace fathom
