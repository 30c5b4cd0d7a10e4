#include "train/checkpoint.h"

#include <cstring>
#include <vector>

#include "base/content_hash.h"
#include "base/error.h"
#include "base/file_map.h"
#include "base/write_file.h"
#include "train/train_config.h"

namespace fathom::train {
namespace {

// File layout: magic, version, header bytes (8 bytes each); the header (JSON, padded with spaces to a multiple of 8
// bytes); values, first and second moments as little-endian f32, padded together to a multiple of 8 bytes; a
// checksum of everything before it.
constexpr char kMagic[8] = {'F', 'A', 'T', 'H', 'O', 'M', 'C', 'P'};
constexpr uint64_t kVersion = 1;
constexpr size_t kWord = sizeof(uint64_t), kPreludeBytes = 3 * kWord;

size_t padded(size_t bytes) { return (bytes + kWord - 1) / kWord * kWord; }

uint64_t word_at(std::span<const std::byte> bytes, size_t at) {
  uint64_t word;
  std::memcpy(&word, bytes.data() + at, kWord);
  return word;
}

uint64_t checksum(std::span<const std::byte> bytes) {
  return hash_content({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

void put(std::vector<std::byte>& out, const void* data, size_t bytes) {
  const auto* from = static_cast<const std::byte*>(data);
  out.insert(out.end(), from, from + bytes);
}

void put_word(std::vector<std::byte>& out, uint64_t word) { put(out, &word, kWord); }

size_t array_bytes(size_t count) { return padded(3 * count * sizeof(float)); }

/// Checks magic, version, checksum and header of a file. Returns the header.
Json checked_header(const std::string& path, std::span<const std::byte> bytes) {
  if (bytes.size() < kPreludeBytes || std::memcmp(bytes.data(), kMagic, sizeof(kMagic)) != 0) {
    fail(path, ": not a checkpoint of a training run");
  }
  if (const uint64_t version = word_at(bytes, kWord); version != kVersion) {
    fail(path, ": checkpoint version ", version, ", expected ", kVersion);
  }
  const size_t body = bytes.size() - kWord;
  if (bytes.size() % kWord != 0 || word_at(bytes, body) != checksum(bytes.first(body))) {
    fail(path, ": damaged or truncated: the checksum does not match its ", bytes.size(), " bytes");
  }
  const uint64_t header_bytes = word_at(bytes, 2 * kWord);
  if (header_bytes > body - kPreludeBytes) fail(path, ": damaged: the header is longer than the file");
  Json header = Json::parse_or_null({reinterpret_cast<const char*>(bytes.data() + kPreludeBytes), header_bytes});
  const auto has_count = [&](const char* key) { return header.contains(key) && header[key].is_number_unsigned(); };
  if (!header.is_object() || !has_count("step") || !has_count("values") || !header.contains("config")) {
    fail(path, ": invalid header: expected step, values and config");
  }
  return header;
}

}  // namespace

void write_checkpoint(const std::string& path, const Json& config, const TrainState& state) {
  const Json header{
      {"step", static_cast<uint64_t>(state.step)}, {"values", state.values.size()}, {"config", config}};
  std::string text = header.dump();
  text.resize(padded(text.size()), ' ');
  std::vector<std::byte> out;
  out.reserve(kPreludeBytes + text.size() + array_bytes(state.values.size()) + kWord);
  put(out, kMagic, sizeof(kMagic));
  put_word(out, kVersion);
  put_word(out, text.size());
  put(out, text.data(), text.size());
  for (const std::span<float> array : {state.values, state.first_moments, state.second_moments}) {
    put(out, array.data(), array.size_bytes());
  }
  out.resize(padded(out.size()));
  put_word(out, checksum(out));
  write_file(path, out);
}

void read_checkpoint(const std::string& path, const Json& config, TrainState& state) {
  const FileMap file(path);
  const std::span<const std::byte> bytes = file.bytes();
  const Json header = checked_header(path, bytes);
  std::string differing;
  for (const std::string& field : differing_fields(header["config"], config))
    differing += (differing.empty() ? "" : "; ") + field;
  if (!differing.empty()) fail(path, ": checkpoint of a run with another config: ", differing);

  const uint64_t count = header["values"].get<uint64_t>();
  if (count != state.values.size()) {
    fail(path, ": has ", count, " values, the model has ", state.values.size());
  }
  const size_t start = kPreludeBytes + word_at(bytes, 2 * kWord);
  if (bytes.size() - start != array_bytes(count) + kWord) {
    fail(path, ": has ", bytes.size() - start, " bytes of values, expected ", array_bytes(count) + kWord);
  }
  const std::byte* from = bytes.data() + start;
  for (const std::span<float> array : {state.values, state.first_moments, state.second_moments}) {
    std::memcpy(array.data(), from, array.size_bytes());
    from += array.size_bytes();
  }
  state.step = header["step"].get<int64_t>();
}

}  // namespace fathom::train
