#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>

#include "base/error.h"
#include "formats/gguf.h"
#include "formats/gguf_layout.h"

namespace fathom {
namespace {

using gguf::quoted;

std::string type_text(const GgufValue& value) {
  if (value.type != GgufType::kArray) return name(value.type);
  return concat("an array of ", value.array.count, " × ", name(value.array.type));
}

[[noreturn]] void fail_type(const Gguf& file, std::string_view key, const char* expected, const GgufValue& value) {
  fail(file.name(), ": metadata key ", quoted(key), ": expected ", expected, ", found ", type_text(value));
}

int64_t checked(const Gguf& file, std::string_view key, uint64_t value) {
  if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    fail(file.name(), ": metadata key ", quoted(key), ": expected at most 2^63 - 1, found ", value);
  }
  return static_cast<int64_t>(value);
}

template <class T>
T element(const GgufArray& array, uint64_t i) {
  T value;
  std::memcpy(&value, array.data + i * sizeof(T), sizeof(T));
  return value;
}

/// Calls visit(number) for each number of the array, with the type that it has in the file.
template <class Visit>
void for_each_number(const GgufArray& array, Visit&& visit) {
  const auto visit_all = [&]<class T>(T) {
    for (uint64_t i = 0; i < array.count; ++i) visit(element<T>(array, i));
  };
  switch (array.type) {
    case GgufType::kU8:
    case GgufType::kBool:
      return visit_all(uint8_t{});
    case GgufType::kI8:
      return visit_all(int8_t{});
    case GgufType::kU16:
      return visit_all(uint16_t{});
    case GgufType::kI16:
      return visit_all(int16_t{});
    case GgufType::kU32:
      return visit_all(uint32_t{});
    case GgufType::kI32:
      return visit_all(int32_t{});
    case GgufType::kF32:
      return visit_all(float{});
    case GgufType::kU64:
      return visit_all(uint64_t{});
    case GgufType::kI64:
      return visit_all(int64_t{});
    case GgufType::kF64:
      return visit_all(double{});
    case GgufType::kString:
    case GgufType::kArray:
      return;
  }
}

bool is_float(GgufType type) { return type == GgufType::kF32 || type == GgufType::kF64; }

}  // namespace

const GgufValue* Gguf::find(std::string_view key) const {
  const auto found = values_.find(key);
  return found == values_.end() ? nullptr : &found->second;
}

std::optional<int64_t> Gguf::integer(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (value->type == GgufType::kArray) fail_type(*this, key, "an integer", *value);
  if (const auto* number = std::get_if<int64_t>(&value->scalar)) return *number;
  if (const auto* number = std::get_if<uint64_t>(&value->scalar)) return checked(*this, key, *number);
  fail_type(*this, key, "an integer", *value);
}

std::optional<double> Gguf::number(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (value->type == GgufType::kArray) fail_type(*this, key, "a number", *value);
  if (const auto* number = std::get_if<double>(&value->scalar)) return *number;
  if (const auto* number = std::get_if<int64_t>(&value->scalar)) return static_cast<double>(*number);
  if (const auto* number = std::get_if<uint64_t>(&value->scalar)) return static_cast<double>(*number);
  fail_type(*this, key, "a number", *value);
}

std::optional<bool> Gguf::boolean(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (value->type != GgufType::kBool) fail_type(*this, key, "a bool", *value);
  return std::get<bool>(value->scalar);
}

std::optional<std::string_view> Gguf::string(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (value->type != GgufType::kString) fail_type(*this, key, "a string", *value);
  return std::get<std::string_view>(value->scalar);
}

const std::vector<std::string_view>* Gguf::strings(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return nullptr;
  if (value->type != GgufType::kArray || value->array.type != GgufType::kString) {
    fail_type(*this, key, "an array of strings", *value);
  }
  return &value->array.strings;
}

std::optional<std::vector<float>> Gguf::floats(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (value->type != GgufType::kArray || value->array.type == GgufType::kString ||
      value->array.type == GgufType::kBool) {
    fail_type(*this, key, "an array of numbers", *value);
  }
  std::vector<float> out;
  out.reserve(value->array.count);
  for_each_number(value->array, [&](auto number) { out.push_back(static_cast<float>(number)); });
  return out;
}

std::optional<std::vector<int64_t>> Gguf::integers(std::string_view key) const {
  const GgufValue* value = find(key);
  if (!value) return std::nullopt;
  if (value->type != GgufType::kArray || value->array.type == GgufType::kString || is_float(value->array.type)) {
    fail_type(*this, key, "an array of integers", *value);
  }
  std::vector<int64_t> out;
  out.reserve(value->array.count);
  for_each_number(value->array, [&](auto number) {
    if constexpr (std::is_same_v<decltype(number), uint64_t>) {
      out.push_back(checked(*this, key, number));
    } else {
      out.push_back(static_cast<int64_t>(number));
    }
  });
  return out;
}

int64_t Gguf::required_integer(std::string_view key) const {
  const std::optional<int64_t> value = integer(key);
  if (!value) fail(name_, ": metadata key ", quoted(key), " is missing: expected an integer");
  return *value;
}

const GgufTensor* Gguf::find_tensor(std::string_view name) const {
  const auto found = tensor_index_.find(name);
  return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

const GgufTensor& Gguf::tensor(std::string_view name, std::span<const int64_t> shape) const {
  const GgufTensor* found = find_tensor(name);
  if (!found) {
    fail(name_, ": tensor ", quoted(name), " is missing: expected one of shape ", gguf::shape_text(shape));
  }
  for (size_t i = 0; i < std::max(shape.size(), found->shape.size()); ++i) {
    if (found->dim(i) != (i < shape.size() ? shape[i] : 1)) {
      fail(name_, ": tensor ", quoted(name), ": expected shape ", gguf::shape_text(shape), ", found ",
           gguf::shape_text(found->shape));
    }
  }
  return *found;
}

}  // namespace fathom
