#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "base/error.h"
#include "base/write_file.h"
#include "formats/gguf.h"
#include "formats/gguf_layout.h"

namespace fathom {
namespace {

using gguf::quoted;

void put_bytes(std::vector<std::byte>& out, const void* data, size_t size) {
  if (size == 0) return;  // data may be null
  out.resize(out.size() + size);
  std::memcpy(out.data() + out.size() - size, data, size);
}

template <class T>
void put(std::vector<std::byte>& out, T value) {
  put_bytes(out, &value, sizeof(value));
}

void put_string(std::vector<std::byte>& out, std::string_view text) {
  put<uint64_t>(out, text.size());
  put_bytes(out, text.data(), text.size());
}

void put_array_header(std::vector<std::byte>& out, GgufType type, uint64_t count) {
  put(out, GgufType::kArray);
  put(out, type);
  put(out, count);
}

[[noreturn]] void fail_scalar(std::string_view key, GgufType type, const char* why) {
  fail("metadata key ", quoted(key), ": ", why, " ", name(type));
}

template <class T>
void put_integer(std::vector<std::byte>& out, std::string_view key, GgufType type, const GgufScalar& value) {
  const auto narrow = [&](auto wide) {
    if (!std::in_range<T>(wide)) fail_scalar(key, type, "the value does not fit in");
    put(out, static_cast<T>(wide));
  };
  if (const auto* number = std::get_if<uint64_t>(&value)) return narrow(*number);
  if (const auto* number = std::get_if<int64_t>(&value)) return narrow(*number);
  fail_scalar(key, type, "expected an integer for");
}

template <class T>
void put_float(std::vector<std::byte>& out, std::string_view key, GgufType type, const GgufScalar& value) {
  const auto* number = std::get_if<double>(&value);
  if (!number) fail_scalar(key, type, "expected a float for");
  if (std::isfinite(*number) && std::abs(*number) > double{std::numeric_limits<T>::max()}) {
    fail_scalar(key, type, "the value does not fit in");
  }
  put(out, static_cast<T>(*number));
}

/// Returns the type and value as encoded in the file.
std::vector<std::byte> encode_scalar(std::string_view key, GgufType type, const GgufScalar& value) {
  std::vector<std::byte> out;
  put(out, type);
  switch (type) {
    case GgufType::kU8:
      put_integer<uint8_t>(out, key, type, value);
      break;
    case GgufType::kI8:
      put_integer<int8_t>(out, key, type, value);
      break;
    case GgufType::kU16:
      put_integer<uint16_t>(out, key, type, value);
      break;
    case GgufType::kI16:
      put_integer<int16_t>(out, key, type, value);
      break;
    case GgufType::kU32:
      put_integer<uint32_t>(out, key, type, value);
      break;
    case GgufType::kI32:
      put_integer<int32_t>(out, key, type, value);
      break;
    case GgufType::kU64:
      put_integer<uint64_t>(out, key, type, value);
      break;
    case GgufType::kI64:
      put_integer<int64_t>(out, key, type, value);
      break;
    case GgufType::kF32:
      put_float<float>(out, key, type, value);
      break;
    case GgufType::kF64:
      put_float<double>(out, key, type, value);
      break;
    case GgufType::kBool:
      if (!std::holds_alternative<bool>(value)) fail_scalar(key, type, "expected a");
      put<uint8_t>(out, std::get<bool>(value));
      break;
    case GgufType::kString:
      if (!std::holds_alternative<std::string_view>(value)) fail_scalar(key, type, "expected a");
      put_string(out, std::get<std::string_view>(value));
      break;
    case GgufType::kArray:
      fail_scalar(key, type, "set() takes single values, not an");
  }
  return out;
}

void check_name(const char* kind, std::string_view text) {
  if (text.empty() || text.size() > gguf::kMaxNameBytes) {
    fail(kind, " ", quoted(text), ": expected 1 to ", gguf::kMaxNameBytes, " bytes, found ", text.size());
  }
}

}  // namespace

void GgufWriter::put_value(std::string key, std::vector<std::byte> encoded) {
  check_name("metadata key", key);
  const auto same = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.key == key; });
  if (same != entries_.end()) {
    same->encoded = std::move(encoded);
  } else {
    entries_.push_back({std::move(key), std::move(encoded)});
  }
}

void GgufWriter::set(std::string key, GgufType type, GgufScalar value) {
  std::vector<std::byte> encoded = encode_scalar(key, type, value);
  if (key == gguf::kAlignmentKey) alignment_ = gguf::checked_alignment(value, "metadata key " + quoted(key));
  put_value(std::move(key), std::move(encoded));
}

void GgufWriter::set_string(std::string key, std::string_view value) {
  set(std::move(key), GgufType::kString, value);
}

void GgufWriter::set_strings(std::string key, const std::vector<std::string>& values) {
  std::vector<std::byte> out;
  put_array_header(out, GgufType::kString, values.size());
  for (const std::string& value : values) put_string(out, value);
  put_value(std::move(key), std::move(out));
}

void GgufWriter::set_floats(std::string key, const std::vector<float>& values) {
  std::vector<std::byte> out;
  put_array_header(out, GgufType::kF32, values.size());
  put_bytes(out, values.data(), values.size() * sizeof(float));
  put_value(std::move(key), std::move(out));
}

void GgufWriter::set_integers(std::string key, const std::vector<int32_t>& values) {
  std::vector<std::byte> out;
  put_array_header(out, GgufType::kI32, values.size());
  put_bytes(out, values.data(), values.size() * sizeof(int32_t));
  put_value(std::move(key), std::move(out));
}

void GgufWriter::set_value(std::string key, const GgufValue& value) {
  if (value.type != GgufType::kArray) return set(std::move(key), value.type, value.scalar);
  const GgufArray& array = value.array;
  std::vector<std::byte> out;
  put_array_header(out, array.type, array.count);
  for (std::string_view text : array.strings) put_string(out, text);
  put_bytes(out, array.data, array.count * gguf::scalar_bytes(array.type));
  put_value(std::move(key), std::move(out));
}

void GgufWriter::add_tensor(std::string name, WeightType type, std::vector<int64_t> shape,
                            std::span<const std::byte> data) {
  check_name("tensor", name);
  const std::string where = "tensor " + quoted(name);
  const size_t bytes = gguf::tensor_bytes(type, shape, where);
  if (data.size() != bytes) {
    fail(where, ": expected ", bytes, " bytes for shape ", gguf::shape_text(shape), " of type ", info(type).name,
         ", found ", data.size());
  }
  if (std::any_of(tensors_.begin(), tensors_.end(), [&](const Tensor& t) { return t.name == name; })) {
    fail(where, ": occurs twice");
  }
  tensors_.push_back({std::move(name), type, std::move(shape), {data.begin(), data.end()}});
}

std::vector<std::byte> GgufWriter::bytes() const {
  std::vector<std::byte> out;
  put_bytes(out, gguf::kMagic.data(), gguf::kMagic.size());
  put(out, gguf::kVersion);
  put<uint64_t>(out, tensors_.size());
  put<uint64_t>(out, entries_.size());
  for (const Entry& entry : entries_) {
    put_string(out, entry.key);
    put_bytes(out, entry.encoded.data(), entry.encoded.size());
  }
  uint64_t offset = 0;
  for (const Tensor& tensor : tensors_) {
    put_string(out, tensor.name);
    put<uint32_t>(out, static_cast<uint32_t>(tensor.shape.size()));
    for (int64_t dim : tensor.shape) put(out, dim);
    put(out, tensor.type);
    put(out, offset);
    offset = gguf::align_up(offset + tensor.data.size(), alignment_);
  }
  out.resize(gguf::align_up(out.size(), alignment_));
  out.reserve(out.size() + offset);
  for (const Tensor& tensor : tensors_) {
    put_bytes(out, tensor.data.data(), tensor.data.size());
    out.resize(gguf::align_up(out.size(), alignment_));
  }
  return out;
}

void GgufWriter::write(const std::string& path) const { write_file(path, bytes()); }

}  // namespace fathom
