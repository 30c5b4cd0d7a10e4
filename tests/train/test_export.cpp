#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <random>

#include "base/error.h"
#include "paths.h"
#include "seed.h"
#include "session/session.h"
#include "train/error_text.h"
#include "train/export_gguf.h"
#include "train/tiny_net.h"

namespace fathom::train {
namespace {

using test::error_of;
using test::largest_difference;
using test::random_tokens;
using test::tiny_config;

/// Returns a random shape: heads, groups, widths, rotary dimensions and scaling, tied or untied output, a window.
NetConfig random_config(std::mt19937& random) {
  const auto pick = [&](std::initializer_list<int> from) { return *(from.begin() + random() % from.size()); };
  NetConfig config = tiny_config();
  ModelConfig& c = config.model;
  c.layers = pick({1, 2, 3});
  c.kv_heads = pick({1, 2, 3});
  c.heads = c.kv_heads * pick({1, 2, 4});
  c.width = pick({24, 64, 96});
  c.key_dim = pick({8, 16, 32});
  c.value_dim = pick({8, 16, 20});
  c.rotary.dims = pick({c.key_dim, c.key_dim / 2});
  c.rotary.base = pick({10000, 500000, 1234567});
  c.ffn_width = pick({32, 72});
  c.vocabulary = pick({50, 333});
  c.sliding_window = pick({0, 0, 19});
  config.tied_output = pick({0, 1}) == 1;
  using Scaling = RotaryConfig::Scaling;
  c.rotary.scaling = std::array{Scaling::kNone, Scaling::kNone, Scaling::kLinear, Scaling::kYarn}[random() % 4];
  if (c.rotary.scaling != Scaling::kNone) c.rotary.factor = 4;
  c.rotary.original_context = c.rotary.scaling == Scaling::kYarn ? 64 : 0;
  if (pick({0, 1})) c.rotary.divisors.assign(c.rotary.dims / 2, 1.5f);
  return config;
}

/// Draws random values, including norms other than 1.
void randomise(Net& net, uint64_t seed) {
  net.initialise(seed, 0.15);
  std::mt19937_64 random(test::seed(seed));
  for (int64_t i = net.matrix_values(); i < net.values().numel(); ++i) {
    net.values().data_ptr<float>()[i] += 0.2f * (static_cast<float>(random() % 1000) / 500 - 1);
  }
}

/// Returns the engine's logits, [tokens, vocabulary].
std::vector<float> engine_logits(std::span<const std::byte> file, std::span<const int32_t> tokens) {
  const auto model = Model::from(Gguf::parse(file, "exported.gguf"));
  SessionOptions options;
  options.cache = "f32";
  Session session(model, std::make_shared<Runtime>(1), options);
  std::vector<float> all;
  AppendOptions append;
  append.on_logits = [&](int64_t, std::span<const float> row) { all.insert(all.end(), row.begin(), row.end()); };
  session.append(tokens, append);
  return all;
}

std::vector<float> net_logits(Net& net, at::ScalarType type, std::span<const int32_t> tokens) {
  const at::NoGradGuard no_gradients;
  const at::Tensor ids = at::empty({1, static_cast<int64_t>(tokens.size())}, at::kLong);
  std::copy(tokens.begin(), tokens.end(), ids.data_ptr<int64_t>());
  const at::Tensor logits = net.logits(net.weights(type), ids).contiguous();
  return {logits.data_ptr<float>(), logits.data_ptr<float>() + logits.numel()};
}

double deviation(const std::vector<float>& a) {
  double squares = 0;
  for (const float x : a) squares += double{x} * x;
  return std::sqrt(squares / static_cast<double>(a.size()));
}

TEST(Export, EngineLogitsEqualThoseOfTheNet) {
  for (unsigned seed = 0; seed < 24; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(test::seed(seed));
    Net net(random_config(random));
    randomise(net, seed);
    const auto tokens = random_tokens(random, 100, net.config().model.vocabulary);
    const auto ours = net_logits(net, at::kFloat, tokens);
    const auto engine = engine_logits(to_gguf(net, WeightType::kF32, nullptr).bytes(), tokens);
    EXPECT_LT(largest_difference(ours, engine), 1e-3);
    EXPECT_GT(deviation(ours), 0.05);
  }
}

TEST(Export, Bfloat16LogitsAreNearTheEnginesFloat32Logits) {
  std::mt19937 random(test::seed(7));
  Net net(tiny_config());
  randomise(net, 7);
  const auto tokens = random_tokens(random, 100, net.config().model.vocabulary);
  const auto rounded = net_logits(net, at::kBFloat16, tokens);
  const auto engine = engine_logits(to_gguf(net, WeightType::kF32, nullptr).bytes(), tokens);
  EXPECT_LT(largest_difference(rounded, engine), 0.1 * deviation(engine));
  EXPECT_GT(largest_difference(rounded, engine), 0);
}

TEST(Export, ImportRestoresBitsAndShape) {
  for (unsigned seed = 0; seed < 8; ++seed) {
    std::mt19937 random(test::seed(seed));
    Net net(random_config(random));
    randomise(net, seed);
    const auto bytes = to_gguf(net, WeightType::kF32, nullptr).bytes();
    const Gguf file = Gguf::parse(bytes, "exported.gguf");
    Net again(read_net_config(file));
    import_gguf(file, again);
    ASSERT_EQ(again.values().numel(), net.values().numel());
    EXPECT_TRUE(at::equal(again.values(), net.values())) << "seed " << seed;
    EXPECT_EQ(to_gguf(again, WeightType::kF32, nullptr).bytes(), bytes) << "seed " << seed;
  }
}

TEST(Export, MatrixTypesFollowTheRowWidth) {
  NetConfig config = tiny_config();
  config.model.width = 256;
  config.model.ffn_width = 96;                     // not a multiple of q4_k's 256
  config.model.heads = config.model.kv_heads = 5;  // 40 columns, not a multiple of q8_0's 32
  Net net(config);
  randomise(net, 1);
  const auto bytes = to_gguf(net, WeightType::kQ4_K, nullptr).bytes();
  const Gguf file = Gguf::parse(bytes, "exported.gguf");
  EXPECT_EQ(file.find_tensor("blk.0.attn_q.weight")->type, WeightType::kQ4_K);
  EXPECT_EQ(file.find_tensor("blk.0.ffn_down.weight")->type, WeightType::kQ8_0);
  EXPECT_EQ(file.find_tensor("blk.0.attn_output.weight")->type, WeightType::kF16);
  EXPECT_EQ(file.find_tensor("blk.0.attn_norm.weight")->type, WeightType::kF32);
}

TEST(Export, EveryTypeIsWithinItsRoundingError) {
  NetConfig config = tiny_config();
  config.model.width = 256;
  Net net(config);
  randomise(net, 2);
  const std::pair<WeightType, double> cases[] = {
      {WeightType::kF16, 1e-3}, {WeightType::kBF16, 4e-3}, {WeightType::kQ8_0, 1e-2}, {WeightType::kQ4_K, 0.1}};
  for (const auto& [type, error] : cases) {
    const auto bytes = to_gguf(net, type, nullptr).bytes();
    const Gguf file = Gguf::parse(bytes, "exported.gguf");
    Net again(read_net_config(file));
    import_gguf(file, again);
    const at::Tensor off = (again.values() - net.values()).narrow(0, 0, net.matrix_values());
    EXPECT_LT(off.norm().item<double>(), error * net.values().norm().item<double>()) << info(type).name;
    EXPECT_GT(off.norm().item<double>(), 0) << info(type).name;
  }
}

TEST(Export, CopiesTheTokenizerAndRejectsAnotherSize) {
  const Gguf seedling = Gguf::open(test::seedling_path());
  NetConfig config = tiny_config();
  const std::string error = error_of([&] { to_gguf(Net(config), WeightType::kF32, &seedling); });
  EXPECT_NE(error.find("the net 40"), std::string::npos) << error;

  config.model.vocabulary = static_cast<int64_t>(seedling.strings("tokenizer.ggml.tokens")->size());
  const auto bytes = to_gguf(Net(config), WeightType::kF32, &seedling).bytes();
  const Gguf file = Gguf::parse(bytes, "exported.gguf");
  EXPECT_EQ(*file.strings("tokenizer.ggml.tokens"), *seedling.strings("tokenizer.ggml.tokens"));
  EXPECT_EQ(file.floats("tokenizer.ggml.scores"), seedling.floats("tokenizer.ggml.scores"));
  for (const std::string_view key : seedling.keys()) {
    EXPECT_TRUE(file.has(key) || !key.starts_with("tokenizer.")) << key;
  }
}

TEST(Export, ImportRejectsOtherShapes) {
  NetConfig config = tiny_config();
  const auto bytes = to_gguf(Net(config), WeightType::kF32, nullptr).bytes();
  const Gguf file = Gguf::parse(bytes, "exported.gguf");
  config.model.ffn_width = 64;
  Net wider(config);
  EXPECT_NE(error_of([&] { import_gguf(file, wider); }).find("ffn_"), std::string::npos);
  config = tiny_config();
  config.model.layers = 1;
  Net shorter(config);
  EXPECT_NE(error_of([&] { import_gguf(file, shorter); }).find("blk.1."), std::string::npos);
  config.model.layers = 3;
  Net longer(config);
  EXPECT_NE(error_of([&] { import_gguf(file, longer); }).find("blk.2."), std::string::npos);
}

}  // namespace
}  // namespace fathom::train
