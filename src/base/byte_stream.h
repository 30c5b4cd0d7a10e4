#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/error.h"

namespace fathom {

/// Types whose bytes are stored as they are, in the byte order of the machine (little-endian).
template <class T>
concept PlainBytes =
    !std::is_same_v<T, bool> && ((std::is_trivially_copyable_v<T> && std::has_unique_object_representations_v<T>) ||
                                 std::is_floating_point_v<T>);

/// Appends values to a list of bytes, which ByteReader reads in the same order.
class ByteWriter {
 public:
  template <PlainBytes T>
  void add(const T& value) {
    add_bytes({reinterpret_cast<const std::byte*>(&value), sizeof value});
  }
  /// Adds the number of values, then the values.
  template <PlainBytes T>
  void add_list(std::span<const T> values) {
    add(uint64_t{values.size()});
    add_bytes(std::as_bytes(values));
  }
  template <PlainBytes T>
  void add_list(const std::vector<T>& values) {
    add_list(std::span<const T>(values));
  }
  void add_flag(bool flag) { add(uint8_t{flag}); }
  void add_text(std::string_view text) { add_list(std::span<const char>(text)); }
  /// Adds bytes without their number.
  void add_bytes(std::span<const std::byte> bytes) { bytes_.insert(bytes_.end(), bytes.begin(), bytes.end()); }

  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

/// Reads what ByteWriter wrote, from bytes of unknown origin. All functions throw Error if there are too few bytes.
class ByteReader {
 public:
  /// what: names the bytes in errors.
  ByteReader(std::span<const std::byte> bytes, std::string_view what) : left_(bytes), what_(what) {}

  template <PlainBytes T>
  T take() {
    T value;
    std::memcpy(&value, take_bytes(sizeof value).data(), sizeof value);
    return value;
  }
  template <PlainBytes T>
  std::vector<T> take_list() {
    const auto count = take<uint64_t>();
    if (count > left_.size() / sizeof(T)) fail_short();
    std::vector<T> values(count);
    if (count > 0) std::memcpy(values.data(), take_bytes(count * sizeof(T)).data(), count * sizeof(T));
    return values;
  }
  /// Like take_list, but throws Error unless there are `count` values.
  template <PlainBytes T>
  std::vector<T> take_list(size_t count) {
    std::vector<T> values = take_list<T>();
    if (values.size() != count) fail(what_, ": expected a list of ", count, " values, found ", values.size());
    return values;
  }
  /// Like take_list, but throws Error if there are more than `most` values.
  template <PlainBytes T>
  std::vector<T> take_list_up_to(int64_t most) {
    std::vector<T> values = take_list<T>();
    check(std::ssize(values) <= most, "expected a list of at most ", most, " values, found ", values.size());
    return values;
  }
  /// Reads an int64 that must be in [least, most].
  int64_t take_int(std::string_view name, int64_t least, int64_t most) {
    const auto value = take<int64_t>();
    check(value >= least && value <= most, name, ": expected a number from ", least, " to ", most, ", found ",
          value);
    return value;
  }
  bool take_flag() { return take<uint8_t>() != 0; }
  std::string_view take_text() {
    const auto count = take<uint64_t>();
    if (count > left_.size()) fail_short();
    const std::span<const std::byte> bytes = take_bytes(count);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  std::span<const std::byte> take_bytes(size_t count) {
    if (count > left_.size()) fail_short();
    const std::span<const std::byte> taken = left_.first(count);
    left_ = left_.subspan(count);
    return taken;
  }
  size_t left() const { return left_.size(); }
  std::string_view what() const { return what_; }
  /// Throws Error unless `valid`. Its text is what() and these parts.
  template <class... Parts>
  void check(bool valid, const Parts&... parts) const {
    if (!valid) fail(what_, ": ", parts...);
  }
  /// Throws Error unless all bytes were read.
  void expect_end() const {
    if (!left_.empty()) fail(what_, ": expected the end, found ", left_.size(), " more bytes");
  }

 private:
  [[noreturn]] void fail_short() const { fail(what_, ": it ends early"); }

  std::span<const std::byte> left_;
  std::string_view what_;
};

}  // namespace fathom
