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

/// GGUF metadata value types, with the format's numbers.
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
const char* name(GgufType type);

/// An array value: strings are views into the file, numbers lie packed (unaligned) as in the file.
struct GgufArray {
  GgufType type = GgufType::kU8;
  uint64_t count = 0;
  const std::byte* data = nullptr;        // numbers: count packed elements
  std::vector<std::string_view> strings;  // strings
};

/// All integers widened to 64 bits, both float types to double.
using GgufScalar = std::variant<uint64_t, int64_t, double, bool, std::string_view>;
struct GgufValue {
  GgufType type = GgufType::kU8;
  GgufScalar scalar;
  GgufArray array;  // when type is kArray
};

struct GgufTensor {
  std::string_view name;
  WeightType type = WeightType::kF32;
  std::vector<int64_t> shape;  // GGUF order: shape[0] is contiguous (columns), shape[1] rows, …; 1 to 4 entries
  const std::byte* data = nullptr;
  size_t bytes = 0;

  int64_t dim(size_t i) const { return i < shape.size() ? shape[i] : 1; }
};

/// A GGUF v2/v3 file, mapped; every length, type and offset is checked when it is opened. Views live as long as the
/// object.
class Gguf {
 public:
  /// Throws Error naming the file, the field and what was expected.
  static Gguf open(const std::string& path);
  /// Reads from memory (not copied; must outlive the result); `name` stands for the file in errors.
  static Gguf parse(std::span<const std::byte> bytes, std::string name);

  const std::string& name() const { return name_; }
  uint32_t version() const { return version_; }
  size_t file_bytes() const { return bytes_.size(); }
  const std::vector<std::string_view>& keys() const { return keys_; }  // in file order
  const std::vector<GgufTensor>& tensors() const { return tensors_; }

  const GgufValue* find(std::string_view key) const;
  bool has(std::string_view key) const { return find(key) != nullptr; }

  /// Typed access. The `optional` forms are empty when the key is absent; a key of the wrong type, or out of
  /// int64's range, throws.
  std::optional<int64_t> integer(std::string_view key) const;
  std::optional<double> number(std::string_view key) const;  // integers are accepted
  std::optional<bool> boolean(std::string_view key) const;
  std::optional<std::string_view> string(std::string_view key) const;
  const std::vector<std::string_view>* strings(std::string_view key) const;  // null when absent
  std::optional<std::vector<float>> floats(std::string_view key) const;
  std::optional<std::vector<int64_t>> integers(std::string_view key) const;  // bools count as 0 and 1
  /// Like integer(), but absent throws.
  int64_t required_integer(std::string_view key) const;

  /// Null when absent.
  const GgufTensor* find_tensor(std::string_view name) const;
  /// Throws an Error that names the tensor when absent, or when its shape differs from `shape` (GGUF order;
  /// trailing 1s may be left out).
  const GgufTensor& tensor(std::string_view name, std::span<const int64_t> shape) const;

 private:
  Gguf() = default;
  void read(std::span<const std::byte> bytes);
  void place_tensors(const std::vector<uint64_t>& offsets, uint64_t header_bytes);

  std::optional<FileMap> map_;
  std::span<const std::byte> bytes_;
  std::string name_;
  uint32_t version_ = 0;
  std::vector<std::string_view> keys_;
  std::map<std::string_view, GgufValue> values_;
  std::vector<GgufTensor> tensors_;
  std::map<std::string_view, size_t> tensor_index_;
};

/// Collects metadata and tensors, then writes a GGUF v3 file: to a temporary beside `path`, synced, renamed.
class GgufWriter {
 public:
  /// A key that is set again keeps its place and takes the new value. Throws Error when the value does not fit
  /// `type`: numbers are narrowed, integers and floats are not mixed. `general.alignment` takes effect.
  void set(std::string key, GgufType type, GgufScalar value);
  void set_string(std::string key, std::string_view value);
  void set_strings(std::string key, const std::vector<std::string>& values);
  void set_floats(std::string key, const std::vector<float>& values);
  void set_integers(std::string key, const std::vector<int32_t>& values);
  /// A value as it was read, to carry it over from another file.
  void set_value(std::string key, const GgufValue& value);
  /// The data are copied. shape in GGUF order. Throws Error when the shape does not suit the type or the data, or
  /// the name is taken.
  void add_tensor(std::string name, WeightType type, std::vector<int64_t> shape, std::span<const std::byte> data);
  /// The whole file in memory.
  std::vector<std::byte> bytes() const;
  /// Throws Error if it cannot be written whole (full disk, no permission); `path` is then as it was before.
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
