#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "base/error.h"
#include "seed.h"
#include "session/session.h"
#include "train/error_text.h"
#include "train/export_gguf.h"
#include "train/landmark_batches.h"
#include "train/tiny_net.h"
#include "train/train_config.h"

namespace fathom::train {
namespace {

using test::error_of;
using test::largest_difference;
using test::random_tokens;

/// Rows of consecutive numbers; token i has weight i.
class CountingBatches final : public BatchSource {
 public:
  explicit CountingBatches(int64_t length) : length_(length) {}
  Batch batch(int64_t step) override {
    Batch batch{.sequences = 2, .length = length_};
    for (int row = 0; row < 2; ++row) {
      for (int64_t i = 0; i <= length_; ++i)
        batch.tokens.push_back(static_cast<int32_t>(100 * step + 10 * row + i));
      for (int64_t i = 1; i <= length_; ++i) batch.weights.push_back(static_cast<float>(i));
    }
    return batch;
  }

 private:
  int64_t length_;
};

TEST(LandmarkBatches, InsertALandmarkAfterEveryBlockWithTheWeightOfTheTokenBefore) {
  LandmarkBatches batches(std::make_unique<CountingBatches>(5), {3}, 9);
  const Batch batch = batches.batch(1);
  EXPECT_EQ(batch.sequences, 2);
  EXPECT_EQ(batch.length, 7);
  EXPECT_EQ(batch.tokens,
            (std::vector<int32_t>{100, 101, 102, 9, 103, 104, 105, 9, 110, 111, 112, 9, 113, 114, 115, 9}));
  EXPECT_EQ(batch.weights, (std::vector<float>{1, 2, 2, 3, 4, 5, 5, 1, 2, 2, 3, 4, 5, 5}));
  EXPECT_EQ(LandmarkBatches(std::make_unique<CountingBatches>(256), {50}, 9).batch(0).length, 261);
}

NetConfig config_of(std::mt19937& random, int64_t block) {
  const auto pick = [&](std::initializer_list<int> from) { return *(from.begin() + random() % from.size()); };
  NetConfig config = test::tiny_config();
  ModelConfig& c = config.model;
  c.kv_heads = pick({1, 2});
  c.heads = c.kv_heads * pick({1, 2, 4});
  c.key_dim = pick({8, 16});
  c.value_dim = pick({8, 20});
  c.rotary.dims = pick({c.key_dim, c.key_dim / 2});
  c.landmarks.tokens = block;
  c.landmark_token = 7;
  return config;
}

/// Returns the net's logits of each token, or of the landmark after it. The landmark's own logit is set to the
/// minimum, as in the engine.
std::vector<float> net_logits(Net& net, std::span<const int32_t> tokens) {
  const at::NoGradGuard no_gradients;
  const ModelConfig& c = net.config().model;
  std::vector<int64_t> ids, rows;
  for (const int32_t token : tokens) {
    ids.push_back(token);
    if ((rows.size() + 1) % c.landmarks.tokens == 0) ids.push_back(c.landmark_token);
    rows.push_back(std::ssize(ids) - 1);
  }
  const at::Tensor in = at::from_blob(ids.data(), {1, std::ssize(ids)}, at::kLong);
  const at::Tensor logits = net.logits(net.weights(at::kFloat), in).select(0, 0).contiguous();
  std::vector<float> all;
  for (const int64_t row : rows) {
    const float* from = logits.data_ptr<float>() + row * c.vocabulary;
    all.insert(all.end(), from, from + c.vocabulary);
    *(all.end() - c.vocabulary + c.landmark_token) = *std::min_element(from, from + c.vocabulary);
  }
  return all;
}

std::vector<float> engine_logits(std::span<const std::byte> file, std::span<const int32_t> tokens,
                                 const std::string& attend) {
  Session session(Model::from(Gguf::parse(file, "exported.gguf")), std::make_shared<Runtime>(1),
                  {.attend = attend, .cache = "f32"});
  std::vector<float> all;
  AppendOptions append;
  append.on_logits = [&](int64_t, std::span<const float> row) { all.insert(all.end(), row.begin(), row.end()); };
  session.append(tokens, append);
  return all;
}

TEST(TrainLandmarks, EngineLogitsEqualThoseOfTheNet) {
  unsigned seed = 0;
  for (const int64_t block : {1, 3, 17, 50, 63}) {
    for (int i = 0; i < 3; ++i) {
      SCOPED_TRACE(testing::Message() << "block " << block << " seed " << ++seed);
      std::mt19937 random(test::seed(seed));
      Net net(config_of(random, block));
      net.initialise(seed, 0.3);
      const auto tokens = random_tokens(random, 170, net.config().model.vocabulary);
      const auto bytes = to_gguf(net, WeightType::kF32, nullptr).bytes();
      const auto ours = net_logits(net, tokens);
      EXPECT_LT(largest_difference(ours, engine_logits(bytes, tokens, "dense")), 1e-3);
      EXPECT_LT(largest_difference(ours, engine_logits(bytes, tokens, "landmark:topk=1000,positions=original")),
                1e-3);
      EXPECT_GT(largest_difference(ours, engine_logits(bytes, tokens, "landmark:topk=1")), 1e-3);
    }
  }
}

TEST(TrainLandmarks, FilesPreserveLandmarks) {
  std::mt19937 random(test::seed(1));
  Net net(config_of(random, 50));
  const auto bytes = to_gguf(net, WeightType::kF32, nullptr).bytes();
  const NetConfig read = read_net_config(Gguf::parse(bytes, "exported.gguf"));
  EXPECT_EQ(read.model.landmarks.tokens, 50);
  EXPECT_EQ(read.model.landmark_token, 7);
}

TEST(TrainLandmarks, FusedLayersGiveThePlainLossAndGradients) {
  std::mt19937 random(test::seed(2));
  const NetConfig config = config_of(random, 5);
  at::manual_seed(3);
  const at::Tensor tokens = at::randint(40, {2, 24}, at::kLong), weights = at::rand({2, 23});
  const auto gradients = [&](const LayerOps& ops) {
    Net net(config, ops);
    net.initialise(4, 0.3);
    net.loss(net.weights(at::kFloat), tokens, weights).backward();
    return net.gradients().clone();
  };
  const at::Tensor plain = gradients(plain_ops()), fused = gradients(fused_ops());
  EXPECT_LT((plain - fused).norm().item<double>(), 1e-5 * plain.norm().item<double>());
  EXPECT_GT(plain.norm().item<double>(), 0.1);
}

TEST(TrainLandmarks, ContradictionsAreNamed) {
  NetConfig config = test::tiny_config();
  config.model.landmarks.tokens = 64;
  EXPECT_NE(error_of([&] { Net net(config); }).find("expected 0 (none) to 63"), std::string::npos);
  const auto parse = [](const char* model) {
    return error_of([&] { parse_train_config({{"model", Json::parse(model)}}, "run.json"); });
  };
  EXPECT_EQ(parse(R"({"landmark_block": 50})"), "");
  EXPECT_NE(parse(R"({"landmark_block": 64})").find("from 0 to 63"), std::string::npos);
  EXPECT_NE(parse(R"({"landmark_block": 50, "sliding_window": 9})").find("one of them to be 0"), std::string::npos);
}

TEST(TrainLandmarks, OldCheckpointsContinueWithoutLandmarks) {
  const auto now = to_json(TrainConfig{});
  auto before = now;
  before["model"].erase("landmark_block");
  EXPECT_TRUE(differing_fields(before, now).empty());
  auto with = now;
  with["model"]["landmark_block"] = 50;
  EXPECT_EQ(differing_fields(before, with), std::vector<std::string>{"model.landmark_block: 0, now 50"});
}

}  // namespace
}  // namespace fathom::train
