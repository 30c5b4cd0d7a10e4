#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace fathom {

/// Number formats of weights, numbered as in GGUF.
enum class WeightType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ4_NL = 20,
  kIQ4_XS = 23,
  kBF16 = 30,
  kMXFP4 = 39,
};

struct WeightTypeInfo {
  WeightType type;
  const char* name;  // lower case, as in specs: "q4_k"
  uint32_t block;    // weights in a block
  uint32_t bytes;    // bytes of a block
};

/// Returns the type with this GGUF number, or null if the engine does not read it.
const WeightTypeInfo* find_weight_type(uint32_t type);
/// Returns the type with this name in any case, or null if there is none.
const WeightTypeInfo* find_weight_type(std::string_view name);
/// Returns the names of all known types, for messages and tests: "f32, f16, …".
std::string_view weight_type_names();

/// Returns the name and block size of a type.
const WeightTypeInfo& info(WeightType type);

/// Returns the bytes of a row of n weights. n must be a multiple of the type's block size.
inline size_t row_bytes(WeightType type, size_t n) { return n / info(type).block * info(type).bytes; }

/// Returns whether a type is multiplied with float activations. All others are multiplied with 8-bit activations.
inline bool is_float(WeightType type) {
  return type == WeightType::kF32 || type == WeightType::kF16 || type == WeightType::kBF16;
}

/// A weight matrix as stored in a mapped file: [rows, cols], row-major, each row a sequence of blocks. y = W·x with
/// x: [cols], y: [rows].
struct Matrix {
  WeightType type = WeightType::kF32;
  const std::byte* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;

  bool empty() const { return data == nullptr; }
  size_t bytes() const { return rows * row_bytes(type, cols); }
  const std::byte* row(int64_t r) const { return data + r * row_bytes(type, cols); }
};

}  // namespace fathom
