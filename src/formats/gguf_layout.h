#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/gguf.h"

namespace fathom::gguf {

/// Constants of the format, shared by the reader and the writer.
inline constexpr std::string_view kMagic = "GGUF";
inline constexpr uint32_t kVersion = 3;             // of written files; version 2 has the same layout
inline constexpr uint64_t kDefaultAlignment = 32;   // bytes, if kAlignmentKey is absent
inline constexpr uint64_t kMinAlignment = 8;        // lower bound of the format; blocks need 2, float32 needs 4
inline constexpr uint64_t kMaxAlignment = 1 << 20;  // larger than any page or vector; keeps the padding small
inline constexpr std::string_view kAlignmentKey = "general.alignment";
inline constexpr size_t kMaxDims = 4;
inline constexpr size_t kMaxNameBytes = 65535;  // keys and tensor names

/// Returns the size of one value of `type` in bytes; 0 for strings, arrays and unknown types.
size_t scalar_bytes(GgufType type);

/// Returns the value of kAlignmentKey. Throws Error that begins with `where` unless it is an integer, a power of
/// two and within the bounds above.
uint64_t checked_alignment(const GgufScalar& value, const std::string& where);

/// Returns `offset` rounded up to a multiple of `alignment`, a power of two. offset ≤ 2^64 − alignment.
inline uint64_t align_up(uint64_t offset, uint64_t alignment) {
  return (offset + alignment - 1) & ~(alignment - 1);
}

/// Returns the size of a tensor in bytes. Throws Error that begins with `where` if there are not 1 to 4 dimensions,
/// if a dimension is zero or negative, if the row is not a multiple of the type's block, or if the size exceeds
/// 2^63 bytes.
size_t tensor_bytes(WeightType type, const std::vector<int64_t>& shape, const std::string& where);

/// Returns `text` in quotes for a message: unprintable bytes as \xNN, cut after 80 bytes.
std::string quoted(std::string_view text);

/// Returns a shape for a message: "[256, 512]".
std::string shape_text(std::span<const int64_t> shape);

}  // namespace fathom::gguf
