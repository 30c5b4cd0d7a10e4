#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/file_map.h"
#include "kernels/types.h"

namespace fathom {

/// Types of GGUF metadata values. The numbers are those of the format.
enum class GgufType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};
/// Returns the name of a type for messages: "uint8", "string", …
const char* name(GgufType type);

/// An array value. Strings are views into the file. Numbers are contiguous and may be unaligned, as in the file.
struct GgufArray {
  GgufType type = GgufType::kU8;
  uint64_t count = 0;
  const std::byte* data = nullptr;        // `count` numbers; null for strings
  std::vector<std::string_view> strings;  // `count` strings; empty for numbers
};

/// A scalar value: integers are widened to 64 bits, floats to double.
using GgufScalar = std::variant<uint64_t, int64_t, double, bool, std::string_view>;
struct GgufValue {
  GgufType type = GgufType::kU8;
  GgufScalar scalar;
  GgufArray array;  // when type is kArray
};

/// A tensor of a file. `name` and `data` point into the file.
struct GgufTensor {
  std::string_view name;
  WeightType type = WeightType::kF32;
  std::vector<int64_t> shape;  // GGUF order: shape[0] is contiguous (columns), shape[1] rows, …; 1 to 4 entries
  const std::byte* data = nullptr;
  size_t bytes = 0;

  int64_t dim(size_t i) const { return i < shape.size() ? shape[i] : 1; }
};

/// A mapped GGUF v2/v3 file. Opening checks every length, type and offset. Views are valid as long as the object
/// exists.
class Gguf {
 public:
  /// Maps and checks a file. Throws Error naming the file, the field and what was expected.
  static Gguf open(const std::string& path);
  /// Reads a file in memory, which is not copied and must outlive the result. `name` is used as the file name in
  /// errors.
  static Gguf parse(std::span<const std::byte> bytes, std::string name);

  const std::string& name() const { return name_; }
  uint32_t version() const { return version_; }
  size_t file_bytes() const { return bytes_.size(); }
  const std::vector<std::string_view>& keys() const { return keys_; }  // in file order
  const std::vector<GgufTensor>& tensors() const { return tensors_; }

  /// Returns the value of a metadata key, or null if it is absent.
  const GgufValue* find(std::string_view key) const;
  bool has(std::string_view key) const { return find(key) != nullptr; }

  /// Typed access to metadata. Returns nothing if the key is absent. Throws Error if the value has another type or
  /// does not fit in int64.
  std::optional<int64_t> integer(std::string_view key) const;
  std::optional<double> number(std::string_view key) const;  // integers are accepted
  std::optional<bool> boolean(std::string_view key) const;
  std::optional<std::string_view> string(std::string_view key) const;
  const std::vector<std::string_view>* strings(std::string_view key) const;  // null when absent
  std::optional<std::vector<float>> floats(std::string_view key) const;
  std::optional<std::vector<int64_t>> integers(std::string_view key) const;  // bools count as 0 and 1
  /// Like integer(), but throws Error if the key is absent.
  int64_t required_integer(std::string_view key) const;

  /// Returns the tensor, or null if it is absent.
  const GgufTensor* find_tensor(std::string_view name) const;
  /// Returns the tensor. Throws Error that names it if it is absent or if its shape differs from `shape` (GGUF
  /// order; trailing 1s may be omitted).
  const GgufTensor& tensor(std::string_view name, std::span<const int64_t> shape) const;

 private:
  Gguf() = default;
  void read(std::span<const std::byte> bytes);
  void locate_tensors(const std::vector<uint64_t>& offsets, uint64_t header_bytes);

  std::optional<FileMap> map_;
  std::span<const std::byte> bytes_;
  std::string name_;
  uint32_t version_ = 0;
  std::vector<std::string_view> keys_;
  std::map<std::string_view, GgufValue> values_;
  std::vector<GgufTensor> tensors_;
  std::map<std::string_view, size_t> tensor_index_;
};

/// Collects metadata and tensors and writes them as a GGUF v3 file.
class GgufWriter {
 public:
  /// Sets a metadata value. A key that is set again keeps its position in the file and takes the new value. Numbers
  /// are narrowed to `type`; integers and floats are not converted into each other. `general.alignment` sets the
  /// alignment of the tensors. Throws Error if the value does not fit `type`.
  void set(std::string key, GgufType type, GgufScalar value);
  void set_string(std::string key, std::string_view value);
  void set_strings(std::string key, const std::vector<std::string>& values);
  void set_floats(std::string key, const std::vector<float>& values);
  void set_integers(std::string key, const std::vector<int32_t>& values);
  /// Copies a value read from another file.
  void set_value(std::string key, const GgufValue& value);
  /// Adds a tensor and copies its data. shape: GGUF order. Throws Error if the shape does not fit the type or the
  /// data, or if there is already a tensor of that name.
  void add_tensor(std::string name, WeightType type, std::vector<int64_t> shape, std::span<const std::byte> data);
  /// Returns the bytes of the whole file.
  std::vector<std::byte> bytes() const;
  /// Writes the file to a temporary file, syncs it and renames it to `path`. Throws Error if a step fails (full
  /// disk, no permission); `path` is then unchanged.
  void write(const std::string& path) const;

 private:
  struct Entry {
    std::string key;
    std::vector<std::byte> encoded;  // type and value as in the file
  };
  struct Tensor {
    std::string name;
    WeightType type;
    std::vector<int64_t> shape;
    std::vector<std::byte> data;
  };
  void put_value(std::string key, std::vector<std::byte> encoded);

  std::vector<Entry> entries_;
  std::vector<Tensor> tensors_;
  uint64_t alignment_ = 32;  // bytes; the format's default
};

}  // namespace fathom
