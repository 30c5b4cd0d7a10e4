#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "base/error.h"
#include "formats/gguf.h"

namespace fathom::test {

inline std::vector<std::byte> float_bytes(const std::vector<float>& values) {
  std::vector<std::byte> bytes(values.size() * sizeof(float));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

/// A small file with a key of every type and three tensors: "first" [4, 3] f32, "second" [32, 2] q8_0, "third" [5]
/// f16.
inline GgufWriter sample_writer() {
  GgufWriter writer;
  writer.set("u8", GgufType::kU8, uint64_t{200});
  writer.set("i8", GgufType::kI8, int64_t{-100});
  writer.set("u16", GgufType::kU16, uint64_t{60000});
  writer.set("i16", GgufType::kI16, int64_t{-30000});
  writer.set("u32", GgufType::kU32, uint64_t{4000000000});
  writer.set("i32", GgufType::kI32, int64_t{-2000000000});
  writer.set("u64", GgufType::kU64, uint64_t{1} << 63);
  writer.set("i64", GgufType::kI64, INT64_MIN);
  writer.set("f32", GgufType::kF32, 0.25);
  writer.set("f64", GgufType::kF64, 1e300);
  writer.set("bool", GgufType::kBool, true);
  writer.set_string("string", "a line\nand \xc3\xa9");
  writer.set_strings("strings", {"", "one", "two"});
  writer.set_floats("floats", {1.5f, -2.5f});
  writer.set_integers("integers", {7, -8, 9});
  writer.add_tensor("first", WeightType::kF32, {4, 3}, float_bytes({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}));
  writer.add_tensor("second", WeightType::kQ8_0, {32, 2}, std::vector<std::byte>(68, std::byte{3}));
  writer.add_tensor("third", WeightType::kF16, {5}, std::vector<std::byte>(10, std::byte{4}));
  return writer;
}

/// Returns the text of the Error that `action` throws; empty if it throws none.
template <class Action>
std::string error_of(Action&& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

inline std::string parse_error(std::span<const std::byte> bytes) {
  return error_of([&] { Gguf::parse(bytes, "sample.gguf"); });
}

}  // namespace fathom::test
