#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace fathom {

/// Number formats of weights, with GGUF's numbers.
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

/// Null if GGUF type number `type` is not one the engine reads.
const WeightTypeInfo* find_weight_type(uint32_t type);
/// Null if there is no type of that name (any case).
const WeightTypeInfo* find_weight_type(std::string_view name);
/// All known types, for messages and tests: "f32, f16, …".
std::string_view weight_type_names();

const WeightTypeInfo& info(WeightType type);

/// Bytes of a row of n weights; n must be a multiple of the block.
inline size_t row_bytes(WeightType type, size_t n) { return n / info(type).block * info(type).bytes; }

/// Float types are multiplied as floats; all others with 8-bit activations.
inline bool is_float(WeightType type) {
  return type == WeightType::kF32 || type == WeightType::kF16 || type == WeightType::kBF16;
}

/// A weight matrix as it lies in a mapped file: row-major, each row a run of blocks. rows × cols, y = W·x with x:
/// [cols], y: [rows].
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
