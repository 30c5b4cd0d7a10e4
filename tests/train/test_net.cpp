#include "train/net.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "base/error.h"
#include "train/tiny_net.h"

namespace fathom::train {
namespace {

using test::tiny_config;

at::Tensor random_tokens(int64_t sequences, int64_t length, int64_t vocabulary, uint64_t seed) {
  at::manual_seed(seed);
  return at::randint(vocabulary, {sequences, length}, at::kLong);
}

at::Tensor logits_of(Net& net, const at::Tensor& tokens) {
  const at::NoGradGuard no_gradients;
  return net.logits(net.weights(at::kFloat), tokens);
}

TEST(Net, LaterTokensAndOtherSequencesDoNotChangeLogits) {
  Net net(tiny_config());
  net.initialise(1, 0.2);
  const at::Tensor tokens = random_tokens(3, 20, 40, 1);
  const at::Tensor whole = logits_of(net, tokens);
  at::Tensor changed = tokens.clone();
  changed.select(0, 2).fill_(7);
  changed.select(0, 0).narrow(0, 12, 8).fill_(9);
  const at::Tensor other = logits_of(net, changed);
  EXPECT_TRUE(at::allclose(whole.select(0, 1), other.select(0, 1), 0, 1e-5));
  EXPECT_TRUE(at::allclose(whole.select(0, 0).narrow(0, 0, 12), other.select(0, 0).narrow(0, 0, 12), 0, 1e-5));
  EXPECT_FALSE(at::allclose(whole.select(0, 0).narrow(0, 12, 8), other.select(0, 0).narrow(0, 12, 8), 0, 1e-2));
}

TEST(Net, AShortBatchAfterALongOneHasTheSameAngles) {
  Net net(tiny_config());
  net.initialise(1, 0.2);
  const at::Tensor tokens = random_tokens(1, 30, 40, 2);
  const at::Tensor first = logits_of(net, tokens.narrow(1, 0, 10));
  logits_of(net, tokens);
  EXPECT_TRUE(at::equal(logits_of(net, tokens.narrow(1, 0, 10)), first));
}

TEST(Net, LossIsTheWeightedSumOfNegativeLogProbabilities) {
  Net net(tiny_config());
  net.initialise(3, 0.2);
  const at::Tensor tokens = random_tokens(2, 9, 40, 3);
  const at::Tensor weights = at::rand({2, 8});
  const double loss = net.loss(net.weights(at::kFloat), tokens, weights).item<double>();
  const at::Tensor shares = at::softmax(logits_of(net, tokens), -1);
  double expected = 0;
  for (int64_t s = 0; s < 2; ++s) {
    for (int64_t i = 0; i < 8; ++i) {
      const double p = shares[s][i][tokens[s][i + 1].item<int64_t>()].item<double>();
      expected -= weights[s][i].item<double>() * std::log(p);
    }
  }
  EXPECT_NEAR(loss, expected, 1e-4 * expected);
}

/// Moves the values in both directions along a random direction and compares the change of the loss with the
/// gradients.
void expect_gradients_equal_differences(const NetConfig& config, uint64_t seed) {
  Net net(config);
  net.initialise(seed, 0.3);
  const at::Tensor tokens = random_tokens(2, 13, config.model.vocabulary, seed), weights = at::rand({2, 12});
  net.loss(net.weights(at::kFloat), tokens, weights).backward();
  const at::NoGradGuard no_gradients;
  const at::Tensor start = net.values().clone();
  for (const NetParameter& p : net.parameters()) {
    at::Tensor direction = at::zeros_like(start);
    direction.narrow(0, p.offset, p.size()).normal_();
    const double step = 2e-3 / direction.norm().item<double>() * std::sqrt(static_cast<double>(p.size()));
    const auto loss_at = [&](double along) {
      net.values().copy_(start + direction * along);
      return net.loss(net.weights(at::kFloat), tokens, weights).item<double>();
    };
    const double slope = (loss_at(step) - loss_at(-step)) / (2 * step);
    const double gradient = (net.gradients() * direction).sum().item<double>();
    const double size = net.gradients().narrow(0, p.offset, p.size()).norm().item<double>();
    EXPECT_NEAR(slope, gradient, 0.02 * std::abs(gradient) + 0.02 * size) << p.name << ", seed " << seed;
    EXPECT_GT(size, 1e-3) << p.name;
  }
}

TEST(Net, GradientsEqualFiniteDifferencesForEveryParameter) {
  NetConfig config = tiny_config();
  expect_gradients_equal_differences(config, 1);
  config.tied_output = false;
  config.model.sliding_window = 5;
  config.model.rotary.dims = 4;
  config.model.kv_heads = 1;
  config.model.value_dim = 6;
  expect_gradients_equal_differences(config, 2);
  config.model.sliding_window = 0;
  config.model.landmarks.tokens = 3;
  expect_gradients_equal_differences(config, 3);
}

TEST(Net, LossesOfTheSameWeightsAddUpInTheGradients) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    Net net(tiny_config());
    net.initialise(5, 0.2);
    const at::Tensor tokens = random_tokens(4, 9, 40, 5), weights = at::rand({4, 8});
    net.loss(net.weights(type), tokens, weights).backward();
    const at::Tensor whole = net.gradients().clone();
    net.gradients().zero_();
    const NetWeights shared = net.weights(type);
    for (int64_t s = 0; s < 4; ++s) {
      net.loss(shared, tokens.narrow(0, s, 1), weights.narrow(0, s, 1)).backward();
    }
    const double bound = type == at::kFloat ? 1e-6 : 2e-2;
    EXPECT_LT((net.gradients() - whole).norm().item<double>(), bound * whole.norm().item<double>());
    EXPECT_GT(whole.norm().item<double>(), 0.1);
  }
}

TEST(Net, MatricesComeFirstAndFillTheValues) {
  NetConfig config = tiny_config();
  config.tied_output = false;
  Net net(config);
  net.initialise(1, 0.1);
  int64_t at = 0;
  for (const NetParameter& p : net.parameters()) {
    EXPECT_EQ(p.offset, at);
    EXPECT_EQ(p.rows > 0, at < net.matrix_values()) << p.name;
    EXPECT_EQ(p.value.data_ptr<float>(), net.values().data_ptr<float>() + at);
    at += p.size();
  }
  EXPECT_EQ(at, net.values().numel());
  EXPECT_TRUE((net.values().narrow(0, net.matrix_values(), at - net.matrix_values()) == 1).all().item<bool>());
}

TEST(Net, InitialValuesDependOnTheSeedOnly) {
  Net a(tiny_config()), b(tiny_config()), c(tiny_config());
  a.initialise(1, 0.1);
  b.initialise(1, 0.1);
  c.initialise(2, 0.1);
  EXPECT_TRUE(at::equal(a.values(), b.values()));
  EXPECT_FALSE(at::equal(a.values(), c.values()));
  EXPECT_NEAR(a.values().narrow(0, 0, 40 * 32).std().item<double>(), 0.1, 0.01);
}

TEST(Net, RejectsContradictoryShapes) {
  const auto error = [](const std::function<void(ModelConfig&)>& change) {
    NetConfig config = tiny_config();
    change(config.model);
    try {
      Net net(config);
    } catch (const Error& rejected) {
      return std::string(rejected.what());
    }
    return std::string();
  };
  EXPECT_EQ(error([](ModelConfig&) {}), "");
  EXPECT_NE(error([](ModelConfig& c) { c.kv_heads = 3; }).find("4 heads are not a multiple of 3"),
            std::string::npos);
  EXPECT_NE(error([](ModelConfig& c) { c.width = 0; }).find("width is 0"), std::string::npos);
  EXPECT_NE(error([](ModelConfig& c) { c.key_dim = 7; }).find("7"), std::string::npos);
  EXPECT_NE(error([](ModelConfig& c) { c.rotary.dims = 10; }).find("10"), std::string::npos);
  EXPECT_NE(error([](ModelConfig& c) { c.architecture = "gpt2"; }).find("gpt2"), std::string::npos);
  EXPECT_NE(error([](ModelConfig& c) { c.norm_eps = 0; }).find("epsilon"), std::string::npos);
  EXPECT_NE(error([](ModelConfig& c) { c.rotary.scaling = RotaryConfig::Scaling::kNtk; }).find("scaling"),
            std::string::npos);
}

}  // namespace
}  // namespace fathom::train
