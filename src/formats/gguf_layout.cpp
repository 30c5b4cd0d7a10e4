#include "formats/gguf_layout.h"

#include <bit>

#include "base/error.h"

namespace fathom {

const char* name(GgufType type) {
  switch (type) {
    case GgufType::kU8:
      return "uint8";
    case GgufType::kI8:
      return "int8";
    case GgufType::kU16:
      return "uint16";
    case GgufType::kI16:
      return "int16";
    case GgufType::kU32:
      return "uint32";
    case GgufType::kI32:
      return "int32";
    case GgufType::kF32:
      return "float32";
    case GgufType::kBool:
      return "bool";
    case GgufType::kString:
      return "string";
    case GgufType::kArray:
      return "array";
    case GgufType::kU64:
      return "uint64";
    case GgufType::kI64:
      return "int64";
    case GgufType::kF64:
      return "float64";
  }
  return "unknown";
}

namespace gguf {

size_t scalar_bytes(GgufType type) {
  switch (type) {
    case GgufType::kU8:
    case GgufType::kI8:
    case GgufType::kBool:
      return 1;
    case GgufType::kU16:
    case GgufType::kI16:
      return 2;
    case GgufType::kU32:
    case GgufType::kI32:
    case GgufType::kF32:
      return 4;
    case GgufType::kU64:
    case GgufType::kI64:
    case GgufType::kF64:
      return 8;
    case GgufType::kString:
    case GgufType::kArray:
      return 0;
  }
  return 0;
}

uint64_t checked_alignment(const GgufScalar& value, const std::string& where) {
  uint64_t alignment = 0;
  if (const auto* number = std::get_if<uint64_t>(&value)) alignment = *number;
  if (const auto* number = std::get_if<int64_t>(&value)) alignment = static_cast<uint64_t>(*number);
  if (alignment < kMinAlignment || alignment > kMaxAlignment || !std::has_single_bit(alignment)) {
    fail(where, ": expected a power of two from ", kMinAlignment, " to ", kMaxAlignment, ", found ",
         alignment ? std::to_string(alignment) : "0 or not an integer");
  }
  return alignment;
}

size_t tensor_bytes(WeightType type, const std::vector<int64_t>& shape, const std::string& where) {
  if (shape.empty() || shape.size() > kMaxDims) {
    fail(where, ": expected 1 to ", kMaxDims, " dimensions, found ", shape.size());
  }
  for (int64_t dim : shape) {
    if (dim <= 0) fail(where, ": expected dimensions of 1 to 2^63 - 1, found shape ", shape_text(shape));
  }
  const WeightTypeInfo& format = info(type);
  if (shape[0] % format.block != 0) {
    fail(where, ": expected rows that are a multiple of ", format.block, " weights (type ", format.name,
         "), found shape ", shape_text(shape));
  }
  int64_t bytes = shape[0] / format.block;
  bool overflows = __builtin_mul_overflow(bytes, static_cast<int64_t>(format.bytes), &bytes);
  for (size_t i = 1; i < shape.size(); ++i) overflows |= __builtin_mul_overflow(bytes, shape[i], &bytes);
  if (overflows) fail(where, ": shape ", shape_text(shape), " of type ", format.name, " exceeds 2^63 bytes");
  return static_cast<size_t>(bytes);
}

std::string quoted(std::string_view text) {
  constexpr size_t kShown = 80;
  std::string out = "'";
  for (unsigned char c : text.substr(0, kShown)) {
    if (c >= 0x20 && c < 0x7f) {
      out += static_cast<char>(c);
    } else {
      constexpr char kHex[] = "0123456789abcdef";
      out += {'\\', 'x', kHex[c >> 4], kHex[c & 15]};
    }
  }
  return out + (text.size() > kShown ? "…'" : "'");
}

std::string shape_text(std::span<const int64_t> shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

}  // namespace gguf
}  // namespace fathom
