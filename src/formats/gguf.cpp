#include "formats/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "formats/gguf_layout.h"

namespace fathom {

static_assert(std::endian::native == std::endian::little,
              "GGUF is read in place, so the machine must be little-endian");

namespace {

using gguf::quoted;

/// Reads the header from start to end. Every step first checks that its bytes exist.
class GgufCursor {
 public:
  GgufCursor(std::span<const std::byte> bytes, const std::string& file) : bytes_(bytes), file_(file) {}

  /// Sets the name of the part that is read, for messages: "metadata key 'general.name'".
  void enter(std::string subject) { subject_ = std::move(subject); }
  const std::string& subject() const { return subject_; }
  uint64_t position() const { return position_; }
  uint64_t remaining() const { return bytes_.size() - position_; }
  std::string where() const { return file_ + ": " + subject_; }

  const std::byte* take(uint64_t count, const char* what) {
    if (count > remaining()) {
      fail(where(), ": ", what, " at byte ", position_, " needs ", count, " bytes, but the file ends at byte ",
           bytes_.size(), "; it is truncated or damaged");
    }
    const std::byte* at = bytes_.data() + position_;
    position_ += count;
    return at;
  }

  template <class T>
  T number(const char* what) {
    T value;
    std::memcpy(&value, take(sizeof(T), what), sizeof(T));
    return value;
  }

  /// Reads the number of items that follow. Throws Error unless that many items of `min_item_bytes` fit in the rest
  /// of the file.
  uint64_t count(const char* what, uint64_t min_item_bytes) {
    const auto n = number<uint64_t>(what);
    if (n > remaining() / min_item_bytes) {
      fail(where(), ": ", what, " before byte ", position_, " is ", n, ", but at most ",
           remaining() / min_item_bytes, " fit in a file of ", bytes_.size(), " bytes; it is truncated or damaged");
    }
    return n;
  }

  std::string_view string(const char* what) {
    const auto length = number<uint64_t>(what);
    return {reinterpret_cast<const char*>(take(length, what)), length};
  }

  /// Reads a metadata key or tensor name.
  std::string_view name(const char* what) {
    const std::string_view text = string(what);
    if (text.empty() || text.size() > gguf::kMaxNameBytes) {
      fail(where(), ": ", what, " before byte ", position_, ": expected 1 to ", gguf::kMaxNameBytes,
           " bytes, found ", text.size());
    }
    return text;
  }

  bool boolean(const char* what) {
    const auto value = number<uint8_t>(what);
    if (value > 1) fail(where(), ": ", what, " at byte ", position_ - 1, ": expected 0 or 1, found ", int{value});
    return value == 1;
  }

  GgufType type(const char* what) {
    const auto number_in_file = number<uint32_t>(what);
    if (number_in_file > static_cast<uint32_t>(GgufType::kF64)) {
      fail(where(), ": ", what, " at byte ", position_ - 4, ": expected 0 to 12, found ", number_in_file);
    }
    return static_cast<GgufType>(number_in_file);
  }

 private:
  std::span<const std::byte> bytes_;
  const std::string& file_;
  std::string subject_ = "header";
  uint64_t position_ = 0;
};

/// Returns a description of a file that is not GGUF, for messages. start: its first bytes.
std::string describe(std::string_view start) {
  constexpr std::pair<std::string_view, const char*> kKinds[] = {
      {"\xff\xd8\xff", "a JPEG picture"},
      {"\x89PNG", "a PNG picture"},
      {"PK\x03\x04", "a zip archive, perhaps a PyTorch checkpoint"},
      {"\x1f\x8b", "a gzip archive"},
      {"\x7f"
       "ELF",
       "an executable"},
      {"version https://git-lfs", "a Git LFS pointer instead of the file: fetch the file with `git lfs pull`"},
      {"<", "HTML or XML, perhaps an error page saved instead of the download"},
      {"tjgg", "an old GGML file: convert it to GGUF"},
      {"lmgg", "an old GGML file: convert it to GGUF"},
      {"FUGG", "a file with its bytes in reverse order"},
  };
  if (start.empty()) return "an empty file";
  for (const auto& [prefix, kind] : kKinds) {
    if (start.starts_with(prefix)) return kind;
  }
  return quoted(start.substr(0, 16));
}

uint32_t read_version(GgufCursor& in, std::span<const std::byte> bytes, const std::string& file) {
  const std::string_view start(reinterpret_cast<const char*>(bytes.data()), std::min<size_t>(bytes.size(), 64));
  if (!start.starts_with(gguf::kMagic)) fail(file, ": expected a GGUF file, found ", describe(start));
  in.take(gguf::kMagic.size(), "magic");
  const auto version = in.number<uint32_t>("version");
  if (version != 0 && (version & 0xffff) == 0) {
    fail(file, ": big-endian GGUF (its version reads ", version, "): expected a little-endian file");
  }
  if (version != 2 && version != 3) fail(file, ": expected GGUF version 2 or 3, found version ", version);
  return version;
}

GgufArray read_array(GgufCursor& in) {
  GgufArray array;
  array.type = in.type("element type");
  if (array.type == GgufType::kArray) {
    fail(in.where(), ": expected an array of numbers or strings, found an array of arrays at byte ",
         in.position() - 4);
  }
  if (array.type == GgufType::kString) {
    array.count = in.count("element count", sizeof(uint64_t));
    array.strings.reserve(array.count);
    for (uint64_t i = 0; i < array.count; ++i) array.strings.push_back(in.string("string in array"));
    return array;
  }
  const size_t size = gguf::scalar_bytes(array.type);
  array.count = in.count("element count", size);
  if (array.type == GgufType::kBool) {
    GgufCursor elements = in;
    for (uint64_t i = 0; i < array.count; ++i) elements.boolean("bool in array");
  }
  array.data = in.take(array.count * size, "array");
  return array;
}

GgufScalar read_scalar(GgufCursor& in, GgufType type) {
  switch (type) {
    case GgufType::kU8:
      return uint64_t{in.number<uint8_t>("value")};
    case GgufType::kI8:
      return int64_t{in.number<int8_t>("value")};
    case GgufType::kU16:
      return uint64_t{in.number<uint16_t>("value")};
    case GgufType::kI16:
      return int64_t{in.number<int16_t>("value")};
    case GgufType::kU32:
      return uint64_t{in.number<uint32_t>("value")};
    case GgufType::kI32:
      return int64_t{in.number<int32_t>("value")};
    case GgufType::kF32:
      return double{in.number<float>("value")};
    case GgufType::kBool:
      return in.boolean("value");
    case GgufType::kString:
      return in.string("value");
    case GgufType::kU64:
      return in.number<uint64_t>("value");
    case GgufType::kI64:
      return in.number<int64_t>("value");
    case GgufType::kF64:
      return in.number<double>("value");
    case GgufType::kArray:
      break;
  }
  return uint64_t{0};  // read_array reads arrays
}

GgufValue read_value(GgufCursor& in) {
  GgufValue value;
  value.type = in.type("value type");
  if (value.type == GgufType::kArray) {
    value.array = read_array(in);
  } else {
    value.scalar = read_scalar(in, value.type);
  }
  return value;
}

/// A tensor's entry in the header. tensor.data is not set yet; `offset` is relative to the start of the data.
struct TensorEntry {
  GgufTensor tensor;
  uint64_t offset = 0;
};

TensorEntry read_tensor_entry(GgufCursor& in) {
  in.enter("tensor list");
  TensorEntry entry;
  GgufTensor& tensor = entry.tensor;
  tensor.name = in.name("tensor name");
  in.enter("tensor " + quoted(tensor.name));
  const auto dims = in.number<uint32_t>("number of dimensions");
  if (dims < 1 || dims > gguf::kMaxDims) {
    fail(in.where(), ": number of dimensions at byte ", in.position() - 4, ": expected 1 to ", gguf::kMaxDims,
         ", found ", dims);
  }
  for (uint32_t i = 0; i < dims; ++i) {
    const auto dim = in.number<uint64_t>("dimension");
    if (dim < 1 || dim > static_cast<uint64_t>(INT64_MAX)) {
      fail(in.where(), ": dimension ", i, " at byte ", in.position() - 8, ": expected 1 to 2^63 - 1, found ", dim);
    }
    tensor.shape.push_back(static_cast<int64_t>(dim));
  }
  const auto type = in.number<uint32_t>("type");
  const WeightTypeInfo* format = find_weight_type(type);
  if (!format) fail(in.where(), ": unknown weight type ", type, "; known: ", weight_type_names());
  tensor.type = format->type;
  tensor.bytes = gguf::tensor_bytes(tensor.type, tensor.shape, in.where());
  entry.offset = in.number<uint64_t>("offset");
  return entry;
}

void check_no_overlap(const std::vector<GgufTensor>& tensors, const std::string& file) {
  std::vector<const GgufTensor*> by_address;
  by_address.reserve(tensors.size());
  for (const GgufTensor& tensor : tensors) by_address.push_back(&tensor);
  std::sort(by_address.begin(), by_address.end(), [](const auto* a, const auto* b) { return a->data < b->data; });
  for (size_t i = 1; i < by_address.size(); ++i) {
    const GgufTensor& before = *by_address[i - 1];
    const GgufTensor& after = *by_address[i];
    if (static_cast<size_t>(after.data - before.data) < before.bytes) {
      fail(file, ": the data of tensors ", quoted(before.name), " and ", quoted(after.name), " overlap");
    }
  }
}

}  // namespace

Gguf Gguf::open(const std::string& path) {
  Gguf file;
  file.name_ = path;
  file.map_.emplace(path);
  file.read(file.map_->bytes());
  return file;
}

Gguf Gguf::parse(std::span<const std::byte> bytes, std::string name) {
  Gguf file;
  file.name_ = std::move(name);
  file.read(bytes);
  return file;
}

void Gguf::read(std::span<const std::byte> bytes) {
  constexpr uint64_t kMinTensorBytes = 8 + 4 + 8 + 4 + 8;  // name length, dimensions, one of them, type, offset
  constexpr uint64_t kMinValueBytes = 8 + 4 + 1;           // key length, type, value
  bytes_ = bytes;
  GgufCursor in(bytes, name_);
  version_ = read_version(in, bytes, name_);
  const uint64_t tensor_count = in.count("tensor count", kMinTensorBytes);
  const uint64_t value_count = in.count("metadata count", kMinValueBytes);

  for (uint64_t i = 0; i < value_count; ++i) {
    in.enter("metadata");
    const std::string_view key = in.name("key");
    in.enter("metadata key " + quoted(key));
    if (!values_.emplace(key, read_value(in)).second) fail(in.where(), ": occurs twice");
    keys_.push_back(key);
  }
  std::vector<uint64_t> offsets;
  for (uint64_t i = 0; i < tensor_count; ++i) {
    TensorEntry entry = read_tensor_entry(in);
    if (!tensor_index_.emplace(entry.tensor.name, i).second) fail(in.where(), ": occurs twice");
    tensors_.push_back(std::move(entry.tensor));
    offsets.push_back(entry.offset);
  }
  locate_tensors(offsets, in.position());
}

void Gguf::locate_tensors(const std::vector<uint64_t>& offsets, uint64_t header_bytes) {
  const GgufValue* given = find(gguf::kAlignmentKey);
  const uint64_t alignment =
      given ? gguf::checked_alignment(given->scalar, name_ + ": metadata key " + quoted(gguf::kAlignmentKey))
            : gguf::kDefaultAlignment;
  const uint64_t data_start = gguf::align_up(header_bytes, alignment);
  const uint64_t data_bytes = bytes_.size() - std::min<uint64_t>(data_start, bytes_.size());
  for (size_t i = 0; i < tensors_.size(); ++i) {
    GgufTensor& tensor = tensors_[i];
    if (offsets[i] % alignment != 0) {
      fail(name_, ": tensor ", quoted(tensor.name), ": offset ", offsets[i],
           " is not a multiple of the alignment, ", alignment);
    }
    if (offsets[i] > data_bytes || tensor.bytes > data_bytes - offsets[i]) {
      fail(name_, ": tensor ", quoted(tensor.name), ": its ", tensor.bytes, " bytes at offset ", offsets[i],
           " of the data, which start at byte ", data_start, ", exceed the file's ", bytes_.size(),
           " bytes; it is truncated or damaged");
    }
    tensor.data = bytes_.data() + data_start + offsets[i];
  }
  check_no_overlap(tensors_, name_);
}

}  // namespace fathom
