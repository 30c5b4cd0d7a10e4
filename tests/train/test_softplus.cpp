#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "base/error.h"
#include "seed.h"
#include "session/session.h"
#include "train/export_gguf.h"
#include "train/tiny_net.h"

namespace fathom::train {
namespace {

NetConfig softplus_config(double power) {
  NetConfig config = test::tiny_config();
  config.model.softplus = true;
  config.model.softplus_power = static_cast<float>(power);
  return config;
}

at::Tensor random_ids(int64_t sequences, int64_t length, unsigned seed) {
  std::mt19937 random(test::seed(seed));
  const at::Tensor ids = at::empty({sequences, length}, at::kLong);
  for (int64_t i = 0; i < ids.numel(); ++i) ids.data_ptr<int64_t>()[i] = static_cast<int64_t>(random() % 40);
  return ids;
}

std::vector<float> engine_logits(const Net& net, const at::Tensor& ids) {
  const std::vector<std::byte> bytes = to_gguf(net, WeightType::kF32, nullptr).bytes();
  Session session(Model::from(Gguf::parse(bytes, "exported.gguf")), std::make_shared<Runtime>(1), {.cache = "f32"});
  std::vector<float> all;
  AppendOptions append;
  append.on_logits = [&](int64_t, std::span<const float> row) { all.insert(all.end(), row.begin(), row.end()); };
  std::vector<int32_t> tokens(ids.data_ptr<int64_t>(), ids.data_ptr<int64_t>() + ids.numel());
  session.append(tokens, append);
  return all;
}

TEST(TrainSoftplus, EngineLogitsEqualThoseOfTheNet) {
  const at::NoGradGuard no_gradients;
  for (const double power : {0.0, 1.0, 3.0, 15.0}) {
    for (const int64_t window : {0, 19}) {
      for (const LayerOps* ops : {&plain_ops(), &fused_ops(), &device_ops()}) {
        NetConfig config = softplus_config(power);
        config.model.sliding_window = window;
        config.model.rotary.dims = window ? 4 : 8;
        Net net(config, *ops);
        net.initialise(5, 0.15);
        const at::Tensor ids = random_ids(1, 150, 3);
        const at::Tensor ours = net.logits(net.weights(at::kFloat), ids).contiguous();
        const std::vector<float> engine = engine_logits(net, ids);
        ASSERT_EQ(static_cast<int64_t>(engine.size()), ours.numel());
        double most = 0;
        for (size_t i = 0; i < engine.size(); ++i)
          most = std::fmax(most, std::fabs(engine[i] - ours.data_ptr<float>()[i]));
        EXPECT_LT(most, 1e-3) << "power " << power << " window " << window;
      }
    }
  }
}

TEST(TrainSoftplus, DiffersFromSoftmax) {
  const at::NoGradGuard no_gradients;
  const at::Tensor ids = random_ids(1, 60, 3);
  std::vector<at::Tensor> logits;
  for (NetConfig config : {test::tiny_config(), softplus_config(0), softplus_config(3)}) {
    Net net(config);
    net.initialise(5, 0.15);
    logits.push_back(net.logits(net.weights(at::kFloat), ids));
  }
  EXPECT_GT((logits[0] - logits[1]).abs().max().item<double>(), 0.01);
  EXPECT_GT((logits[1] - logits[2]).abs().max().item<double>(), 0.01);
}

TEST(TrainSoftplus, GradientsEqualFiniteDifferences) {
  for (const double power : {0.0, 3.0}) {
    Net net(softplus_config(power), fused_ops());
    net.initialise(5, 0.3);
    const at::Tensor ids = random_ids(2, 31, 3), weights = at::ones({2, 30});
    const auto loss = [&] { return net.loss(net.weights(at::kFloat), ids, weights); };
    net.gradients().zero_();
    loss().backward();
    const at::Tensor gradients = net.gradients().clone();
    ASSERT_TRUE(gradients.isfinite().all().item<bool>());
    // Along the gradients of query and key matrices, which affect the loss only through the attention weights.
    const at::NoGradGuard no_gradients;
    for (const NetParameter& p : net.parameters()) {
      if (p.name != "blk.0.attn_q.weight" && p.name != "blk.1.attn_k.weight") continue;
      const at::Tensor part = gradients.narrow(0, p.offset, p.size());
      const double slope = part.square().sum().item<double>(), step = 2e-3 / std::sqrt(slope);
      const at::Tensor values = net.values().narrow(0, p.offset, p.size()), before = values.clone();
      values.copy_(before + part * step);
      const double above = loss().item<double>();
      values.copy_(before - part * step);
      const double below = loss().item<double>();
      values.copy_(before);
      EXPECT_NEAR((above - below) / (2 * step) / slope, 1, 0.05) << p.name << " power " << power;
    }
  }
}

TEST(TrainSoftplus, ExtremeWeightsGiveFiniteGradients) {
  for (const double deviation : {1e-6, 1.0}) {
    for (const double power : {0.0, 1.0, 3.0, 15.0}) {
      Net net(softplus_config(power), fused_ops());
      net.initialise(5, deviation);
      const at::Tensor ids = random_ids(2, 65, 3);
      net.gradients().zero_();
      net.loss(net.weights(at::kFloat), ids, at::ones({2, 64})).backward();
      EXPECT_TRUE(net.gradients().isfinite().all().item<bool>()) << deviation << ", power " << power;
    }
  }
}

TEST(TrainSoftplus, FilesPreserveAttentionAndPower) {
  for (const double power : {0.0, 3.0}) {
    Net net(softplus_config(power));
    const auto bytes = to_gguf(net, WeightType::kF32, nullptr).bytes();
    const NetConfig again = read_net_config(Gguf::parse(bytes, "exported.gguf"));
    EXPECT_TRUE(again.model.softplus);
    EXPECT_EQ(again.model.softplus_power, power);
  }
  const auto plain = to_gguf(Net(test::tiny_config()), WeightType::kF32, nullptr).bytes();
  EXPECT_FALSE(read_net_config(Gguf::parse(plain, "exported.gguf")).model.softplus);
  EXPECT_THROW(Net(softplus_config(0.5)), Error);
}

}  // namespace
}  // namespace fathom::train
