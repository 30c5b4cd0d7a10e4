#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "train/net.h"
#include "train/trainer.h"
#include "train/updater.h"

namespace fathom::train {
namespace {

TrainConfig small_config(const std::string& kind) {
  TrainConfig config;
  config.model = {
      .layers = 2, .width = 32, .heads = 4, .kv_heads = 2, .head_dim = 8, .ffn_width = 64, .vocabulary = 40};
  config.optimizer.kind = kind;
  return config;
}

/// Compares the loops for the CPU with libtorch's operations for a GPU.
TEST(Updater, LoopsAndTensorOperationsGiveTheSameValues) {
  for (const std::string kind : {"adamw", "muon"}) {
    const TrainConfig config = small_config(kind);
    Net a(net_config(config, 0)), b(net_config(config, 0));
    a.initialise(1, 0.1), b.initialise(1, 0.1);
    const auto loops = make_updater(config, a), tensors = make_tensor_updater(config, b);
    const at::Tensor before = a.values().clone();
    at::manual_seed(5);
    for (int step = 0; step < 3; ++step) {
      const at::Tensor gradients = at::randn_like(a.gradients());
      a.gradients().copy_(gradients);
      b.gradients().copy_(gradients);
      EXPECT_NEAR(loops->gradient_norm(), tensors->gradient_norm(), 1e-4);
      loops->step(0.01, 0.5);
      tensors->step(0.01, 0.5);
    }
    EXPECT_TRUE(at::allclose(a.values(), b.values(), 1e-4, 1e-5)) << kind;
    EXPECT_TRUE(at::allclose(loops->first_moments(), tensors->first_moments(), 1e-4, 1e-6)) << kind;
    EXPECT_TRUE(at::allclose(loops->second_moments(), tensors->second_moments(), 1e-4, 1e-7)) << kind;
    EXPECT_GT((a.values() - before).abs().min().item<double>(), 0) << kind;
  }
}

TEST(Updater, RequestingAMissingGpuIsAnError) {
  if (at::hasCUDA()) GTEST_SKIP() << "this machine has a GPU";
  TrainConfig config;
  EXPECT_EQ(training_device(config), at::kCPU);
  config.device = "cuda";
  EXPECT_THROW(training_device(config), Error);
}

}  // namespace
}  // namespace fathom::train
