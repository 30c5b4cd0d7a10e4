#include "session/cartridge.h"

#include <cmath>
#include <cstring>
#include <numeric>

#include "base/error.h"
#include "formats/gguf_layout.h"

namespace fathom {
namespace {

constexpr int64_t kMaxSlots = 1 << 20, kMaxCartridgeLayers = 4096;

std::string slot_tensor(size_t layer, const char* part) { return concat("blk.", layer, ".slot_", part); }

/// Throws Error unless the slots of a layer have the shape of its pages.
void check_layer(const Cartridge& cartridge, int layer, const PagedKv* kv) {
  if (!kv || kv->shape().values_in_keys())
    fail("layer ", layer, " cannot hold a cartridge: expected attention with separate keys and values");
  const Cartridge::Layer& own = cartridge.layers[layer];
  const auto check = [&](const char* what, size_t found, int64_t dimensions) {
    const int64_t expected = kv->heads() * cartridge.slots * dimensions;
    if (static_cast<int64_t>(found) != expected)
      fail("the cartridge's layer ", layer, " has ", found, " ", what, " numbers, expected ", expected, ": ",
           kv->heads(), " heads · ", cartridge.slots, " slots · ", dimensions, " dimensions");
  };
  if (cartridge.kv_heads != kv->heads())
    fail("the cartridge has ", cartridge.kv_heads, " key/value heads, expected ", kv->heads(), " as in layer ",
         layer);
  check("key", own.keys.size(), kv->shape().key_dim);
  check("value", own.values.size(), kv->shape().value_dim);
}

void expect_cartridge_text(const Gguf& file, std::string_view key, std::string_view expected) {
  const auto found = file.string(key);
  if (!found || *found != expected)
    fail(file.name(), ": metadata key ", gguf::quoted(key), ": expected ", gguf::quoted(expected), ", found ",
         found ? gguf::quoted(*found) : "none");
}

int64_t cartridge_size(const Gguf& file, std::string_view key, int64_t max) {
  const int64_t size = file.required_integer(key);
  if (size < 1 || size > max)
    fail(file.name(), ": metadata key ", gguf::quoted(key), ": expected an integer from 1 to ", max, ", found ",
         size);
  return size;
}

/// Returns the numbers of a tensor of the slots, which must be finite.
std::vector<float> slot_numbers(const Gguf& file, const std::string& name, const Cartridge& cartridge) {
  const GgufTensor* tensor = file.find_tensor(name);
  if (!tensor) fail(file.name(), ": tensor ", name, " is missing");
  if (tensor->type != WeightType::kF32 || tensor->shape.size() > 3 || tensor->dim(0) < 1 ||
      tensor->dim(1) != cartridge.slots || tensor->dim(2) != cartridge.kv_heads)
    fail(file.name(), ": tensor ", name, ": expected f32 numbers of [dimensions, ", cartridge.slots, ", ",
         cartridge.kv_heads, "]");
  std::vector<float> numbers(tensor->bytes / sizeof(float));
  std::memcpy(numbers.data(), tensor->data, numbers.size() * sizeof(float));
  for (const float x : numbers)
    if (!std::isfinite(x)) fail(file.name(), ": tensor ", name, ": expected finite numbers, found ", x);
  return numbers;
}

}  // namespace

void append_cartridge(Sequence& sequence, Runtime& runtime, const Cartridge& cartridge) {
  if (sequence.is_open()) fail("a cartridge cannot be appended while tokens are open");
  if (std::ssize(cartridge.layers) != sequence.layers())
    fail("the cartridge has ", cartridge.layers.size(), " layers, expected ", sequence.layers(),
         ", those of the sequence");
  for (int layer = 0; layer < sequence.layers(); ++layer)
    check_layer(cartridge, layer, sequence.recurrent(layer) ? nullptr : sequence.paged(layer));
  std::vector<int64_t> positions(cartridge.slots);
  std::iota(positions.begin(), positions.end(), sequence.next_position());
  sequence.open(positions);
  try {
    for (int layer = 0; layer < sequence.layers(); ++layer) {
      PagedKv& kv = sequence.kv(layer);
      const int64_t key_dim = kv.shape().key_dim, value_dim = kv.shape().value_dim;
      const Cartridge::Layer& own = cartridge.layers[layer];
      kv.reserve_rotations(sequence.end_position());
      runtime.pool().parallel_for(kv.heads(), [&](size_t head, int) {
        const int64_t first = static_cast<int64_t>(head) * cartridge.slots;
        kv.write(runtime.work().kernels, static_cast<int>(head), cartridge.slots, own.keys.data() + first * key_dim,
                 key_dim, own.values.data() + first * value_dim, value_dim);
      });
    }
  } catch (...) {
    sequence.abandon();
    throw;
  }
  sequence.commit();
}

GgufWriter to_gguf(const Cartridge& cartridge) {
  GgufWriter writer;
  writer.set_string("general.type", "cartridge");
  writer.set_string("general.architecture", "fathom-cartridge");
  writer.set_string("cartridge.base", cartridge.base);
  writer.set("cartridge.slots", GgufType::kU32, cartridge.slots);
  writer.set("cartridge.layers", GgufType::kU32, static_cast<int64_t>(cartridge.layers.size()));
  writer.set("cartridge.kv_heads", GgufType::kU32, int64_t{cartridge.kv_heads});
  for (size_t i = 0; i < cartridge.layers.size(); ++i) {
    const auto add = [&](const char* part, const std::vector<float>& numbers) {
      const int64_t rows = cartridge.slots * cartridge.kv_heads;
      writer.add_tensor(slot_tensor(i, part), WeightType::kF32,
                        {std::ssize(numbers) / rows, cartridge.slots, cartridge.kv_heads},
                        std::as_bytes(std::span(numbers)));
    };
    add("k", cartridge.layers[i].keys);
    add("v", cartridge.layers[i].values);
  }
  return writer;
}

Cartridge read_cartridge(const Gguf& file) {
  expect_cartridge_text(file, "general.type", "cartridge");
  expect_cartridge_text(file, "general.architecture", "fathom-cartridge");
  Cartridge cartridge;
  cartridge.base = file.string("cartridge.base").value_or("");
  cartridge.slots = cartridge_size(file, "cartridge.slots", kMaxSlots);
  cartridge.kv_heads = static_cast<int>(cartridge_size(file, "cartridge.kv_heads", kMaxSlots));
  const int64_t layers = cartridge_size(file, "cartridge.layers", kMaxCartridgeLayers);
  for (int64_t i = 0; i < layers; ++i) {
    cartridge.layers.push_back(
        {slot_numbers(file, slot_tensor(i, "k"), cartridge), slot_numbers(file, slot_tensor(i, "v"), cartridge)});
  }
  return cartridge;
}

}  // namespace fathom
