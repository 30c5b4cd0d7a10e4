#include <cstddef>
#include <cstdint>
#include <exception>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "formats/gguf.h"

namespace fathom {
namespace {

/// Runs `action`; only Error may be thrown.
template <class Action>
void allow_error(Action&& action) {
  try {
    action();
  } catch (const Error&) {
  }
}

void read_as_every_type(const Gguf& file, std::string_view key) {
  allow_error([&] { file.integer(key); });
  allow_error([&] { file.number(key); });
  allow_error([&] { file.boolean(key); });
  allow_error([&] { file.string(key); });
  allow_error([&] { file.strings(key); });
  allow_error([&] { file.floats(key); });
  allow_error([&] { file.integers(key); });
}

/// Reads all bytes of all strings and tensors, so that the sanitiser checks their addresses.
size_t sum_of_bytes(const Gguf& file) {
  size_t sum = 0;
  const auto add = [&](const auto& bytes) {
    for (auto byte : bytes) sum += static_cast<size_t>(byte);
  };
  for (std::string_view key : file.keys()) {
    const GgufValue& value = *file.find(key);
    if (const auto* text = std::get_if<std::string_view>(&value.scalar)) add(*text);
    for (std::string_view text : value.array.strings) add(text);
  }
  for (const GgufTensor& tensor : file.tensors()) {
    add(std::span(tensor.data, tensor.bytes));
    if (&file.tensor(tensor.name, tensor.shape) != &tensor) std::terminate();
  }
  return sum;
}

/// Checks that a parsed file can be written and reads the same again.
void check_rewritten(const Gguf& file) {
  GgufWriter writer;
  for (std::string_view key : file.keys()) writer.set_value(std::string(key), *file.find(key));
  for (const GgufTensor& t : file.tensors()) {
    writer.add_tensor(std::string(t.name), t.type, t.shape, {t.data, t.bytes});
  }
  const std::vector<std::byte> bytes = writer.bytes();
  const Gguf again = Gguf::parse(bytes, "again");
  if (again.keys() != file.keys() || sum_of_bytes(again) != sum_of_bytes(file)) std::terminate();
}

}  // namespace
}  // namespace fathom

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace fathom;
  std::optional<Gguf> file;
  allow_error([&] { file = Gguf::parse(std::as_bytes(std::span(data, size)), "fuzzed"); });
  if (!file) return 0;
  for (std::string_view key : file->keys()) read_as_every_type(*file, key);
  check_rewritten(*file);
  return 0;
}
