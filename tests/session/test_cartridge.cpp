#include "session/cartridge.h"

#include <gtest/gtest.h>

#include <random>

#include "attend/methods.h"
#include "base/error.h"
#include "models/tiny_model.h"
#include "seed.h"
#include "session/session.h"

namespace fathom {
namespace {

/// Returns random slots in the shape of test::floats(): 3 layers, 2 key/value heads of 16 dimensions.
Cartridge random_cartridge(int64_t slots, uint32_t seed) {
  std::mt19937 random(test::seed(seed));
  std::normal_distribution<float> normal;
  Cartridge made{.base = "tiny", .slots = slots, .kv_heads = 2, .layers = std::vector<Cartridge::Layer>(3)};
  for (Cartridge::Layer& layer : made.layers) {
    for (std::vector<float>* numbers : {&layer.keys, &layer.values}) {
      numbers->resize(2 * slots * 16);
      for (float& x : *numbers) x = normal(random);
    }
  }
  return made;
}

/// Returns slots [begin, end).
Cartridge part_of(const Cartridge& whole, int64_t begin, int64_t end) {
  Cartridge part{.base = whole.base, .slots = end - begin, .kv_heads = whole.kv_heads};
  for (const Cartridge::Layer& layer : whole.layers) {
    const auto cut = [&](const std::vector<float>& numbers) {
      std::vector<float> kept;
      for (int64_t head = 0; head < whole.kv_heads; ++head) {
        const auto first = numbers.begin() + head * whole.slots * 16;
        kept.insert(kept.end(), first + begin * 16, first + end * 16);
      }
      return kept;
    };
    part.layers.push_back({cut(layer.keys), cut(layer.values)});
  }
  return part;
}

class CartridgeTest : public testing::Test {
 protected:
  Sequence sequence() { return engine_->new_sequence({.cache = "f32"}); }
  void append(Sequence& to, const Cartridge& cartridge) { append_cartridge(to, engine_->runtime(), cartridge); }
  /// Reads tokens and returns the logits of the last one.
  std::vector<float> read(Sequence& from, std::vector<int32_t> tokens) {
    const std::unique_ptr<Selector> dense = attend_methods().make("dense");
    const int64_t last = std::ssize(tokens) - 1;
    Rows rows;
    rows.sequence = &from;
    rows.policy.selector = dense.get();
    rows.tokens = tokens;
    rows.output_rows = {&last, 1};
    engine_->forward({&rows, 1});
    rows.result.throw_if_failed();
    return rows.result.logits;
  }
  std::string error(const Cartridge& cartridge) {
    Sequence to = sequence();
    try {
      append(to, cartridge);
    } catch (const Error& error) {
      EXPECT_EQ(to.tokens(), 0);
      return error.what();
    }
    return "";
  }

  std::shared_ptr<Engine> engine_ = std::make_shared<Engine>(test::floats(), std::make_shared<Runtime>(2));
};

TEST_F(CartridgeTest, PartsOneAfterAnotherEqualTheWhole) {
  const Cartridge cartridge = random_cartridge(150, 1);
  Sequence whole = sequence(), parts = sequence();
  append(whole, cartridge);
  append(parts, part_of(cartridge, 0, 70));
  append(parts, part_of(cartridge, 70, 150));
  EXPECT_EQ(parts.tokens(), 150);
  EXPECT_EQ(parts.next_position(), 150);
  EXPECT_EQ(parts.ids()[149], -1);
  EXPECT_EQ(read(parts, {5, 6, 7}), read(whole, {5, 6, 7}));
}

TEST_F(CartridgeTest, EverySlotOfEveryLayerChangesTheLogits) {
  const Cartridge cartridge = random_cartridge(3, 2);
  const auto logits = [&](const Cartridge& of) {
    Sequence with = sequence();
    append(with, of);
    return read(with, {9});
  };
  const std::vector<float> expected = logits(cartridge);
  for (size_t layer = 0; layer < 3; ++layer) {
    for (size_t row = 0; row < 6; ++row) {
      Cartridge keys = cartridge, values = cartridge;
      keys.layers[layer].keys[row * 16] += 1;
      values.layers[layer].values[row * 16] += 1;
      EXPECT_NE(logits(keys), expected);
      EXPECT_NE(logits(values), expected);
    }
  }
}

TEST_F(CartridgeTest, AFileHasTheSameBits) {
  const Cartridge cartridge = random_cartridge(5, 3);
  const std::vector<std::byte> bytes = to_gguf(cartridge).bytes();
  const Cartridge read = read_cartridge(Gguf::parse(bytes, "slots.gguf"));
  EXPECT_EQ(read.base, "tiny");
  EXPECT_EQ(read.slots, 5);
  EXPECT_EQ(read.kv_heads, 2);
  ASSERT_EQ(read.layers.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(read.layers[i].keys, cartridge.layers[i].keys);
    EXPECT_EQ(read.layers[i].values, cartridge.layers[i].values);
  }
}

TEST_F(CartridgeTest, ShapesOfOtherModelsAreRejected) {
  Cartridge layers = random_cartridge(4, 4), heads = layers, keys = layers, values = layers;
  EXPECT_EQ(error(layers), "");
  layers.layers.pop_back();
  heads.kv_heads = 4;
  keys.layers[1].keys.pop_back();
  values.layers[2].values.resize(7);
  EXPECT_EQ(error(layers), "the cartridge has 2 layers, expected 3, those of the sequence");
  EXPECT_EQ(error(heads), "the cartridge has 4 key/value heads, expected 2 as in layer 0");
  EXPECT_EQ(error(keys),
            "the cartridge's layer 1 has 127 key numbers, expected 128: 2 heads · 4 slots · 16 dimensions");
  EXPECT_EQ(error(values),
            "the cartridge's layer 2 has 7 value numbers, expected 128: 2 heads · 4 slots · 16 dimensions");
}

TEST_F(CartridgeTest, DamagedFilesAreRejected) {
  const auto error_of_file = [](GgufWriter writer) {
    const std::vector<std::byte> bytes = writer.bytes();
    try {
      read_cartridge(Gguf::parse(bytes, "slots.gguf"));
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  const Cartridge cartridge = random_cartridge(4, 5);
  EXPECT_EQ(error_of_file(to_gguf(cartridge)), "");
  GgufWriter other = to_gguf(cartridge), none = other, many = other, more = other, wide = other;
  other.set_string("general.architecture", "llama");
  none.set("cartridge.slots", GgufType::kU32, int64_t{0});
  many.set("cartridge.slots", GgufType::kU32, int64_t{5});
  more.set("cartridge.layers", GgufType::kU32, int64_t{4});
  wide.set("cartridge.kv_heads", GgufType::kU32, int64_t{1});
  EXPECT_NE(error_of_file(other).find("expected 'fathom-cartridge', found 'llama'"), std::string::npos);
  EXPECT_NE(error_of_file(none).find("expected an integer from 1"), std::string::npos);
  EXPECT_NE(error_of_file(many).find("blk.0.slot_k: expected f32 numbers of [dimensions, 5, 2]"),
            std::string::npos);
  EXPECT_NE(error_of_file(more).find("blk.3.slot_k is missing"), std::string::npos);
  EXPECT_NE(error_of_file(wide).find("[dimensions, 4, 1]"), std::string::npos);
  Cartridge infinite = cartridge;
  infinite.layers[2].values[3] = INFINITY;
  EXPECT_NE(error_of_file(to_gguf(infinite)).find("blk.2.slot_v: expected finite numbers"), std::string::npos);
}

}  // namespace
}  // namespace fathom
