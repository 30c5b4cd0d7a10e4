#include "train/schedule.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "seed.h"
#include "train/optimizer.h"

namespace fathom::train {
namespace {

constexpr double kNear = 1e-12;

TEST(Schedule, WarmupRisesLinearlyToThePeak) {
  for (const auto kind : {Schedule::Kind::kCosine, Schedule::Kind::kStable}) {
    const Schedule s{.kind = kind, .peak = 2, .warmup_steps = 4, .decay_steps = 10, .steps = 100};
    for (int step = 0; step < 4; ++step) EXPECT_NEAR(learning_rate(s, step), 0.5 * (step + 1), kNear);
  }
}

TEST(Schedule, CosineFallsFromThePeakToTheFloorThroughTheirMean) {
  const Schedule s{.peak = 1, .floor_share = 0.2, .warmup_steps = 11, .steps = 111};
  EXPECT_NEAR(learning_rate(s, 10), 1, kNear);
  EXPECT_NEAR(learning_rate(s, 60), 0.6, kNear);
  EXPECT_NEAR(learning_rate(s, 110), 0.2, kNear);
  EXPECT_NEAR(learning_rate(s, 1000), 0.2, kNear);
  for (int step = 11; step <= 110; ++step) EXPECT_LT(learning_rate(s, step), learning_rate(s, step - 1));
}

TEST(Schedule, StableStaysAtThePeakThenFallsLinearly) {
  const Schedule s{.kind = Schedule::Kind::kStable,
                   .peak = 1,
                   .floor_share = 0,
                   .warmup_steps = 5,
                   .decay_steps = 20,
                   .steps = 101};
  for (int step = 5; step <= 80; ++step) EXPECT_EQ(learning_rate(s, step), 1);
  EXPECT_NEAR(learning_rate(s, 85), 0.75, kNear);
  EXPECT_NEAR(learning_rate(s, 90), 0.5, kNear);
  EXPECT_NEAR(learning_rate(s, 100), 0, kNear);
}

TEST(Schedule, WorksWithoutWarmupOrDecayAndForOneStep) {
  const Schedule s{.kind = Schedule::Kind::kStable, .peak = 1, .warmup_steps = 0, .steps = 10};
  EXPECT_EQ(learning_rate(s, 0), 1);
  EXPECT_EQ(learning_rate(s, 9), 1);
  EXPECT_EQ(learning_rate({.peak = 1, .floor_share = 1, .warmup_steps = 0, .steps = 1}, 0), 1);
  EXPECT_EQ(learning_rate({.peak = 1, .warmup_steps = 0, .steps = 10}, 0), 1);
}

TEST(Optimizer, EqualsLibtorchsAdamW) {
  constexpr int64_t kMatrix = 300, kNorm = 50;
  const AdamWOptions options{.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-6, .weight_decay = 0.3};
  torch::manual_seed(1);
  torch::Tensor matrix = torch::randn({kMatrix}), norm = torch::randn({kNorm});
  std::vector<float> values(kMatrix + kNorm);
  std::copy_n(matrix.data_ptr<float>(), kMatrix, values.begin());
  std::copy_n(norm.data_ptr<float>(), kNorm, values.begin() + kMatrix);
  matrix.requires_grad_(true);
  norm.requires_grad_(true);
  const auto theirs = [&](torch::Tensor& tensor, double decay) {
    return torch::optim::AdamW({tensor},
                               torch::optim::AdamWOptions(0.01).betas({0.9, 0.95}).eps(1e-6).weight_decay(decay));
  };
  auto of_matrix = theirs(matrix, 0.3), of_norm = theirs(norm, 0);
  AdamW ours(kMatrix + kNorm, kMatrix, options);
  for (int step = 0; step < 50; ++step) {
    matrix.mutable_grad() = torch::randn({kMatrix});
    norm.mutable_grad() = torch::randn({kNorm});
    std::vector<float> gradients(kMatrix + kNorm);
    std::copy_n(matrix.grad().data_ptr<float>(), kMatrix, gradients.begin());
    std::copy_n(norm.grad().data_ptr<float>(), kNorm, gradients.begin() + kMatrix);
    of_matrix.step();
    of_norm.step();
    for (float& g : gradients) g *= 4;
    ours.step(values, gradients, 0.01, 0.25);
  }
  for (int64_t i = 0; i < kMatrix; ++i) EXPECT_NEAR(values[i], matrix.data_ptr<float>()[i], 1e-5);
  for (int64_t i = 0; i < kNorm; ++i) EXPECT_NEAR(values[kMatrix + i], norm.data_ptr<float>()[i], 1e-5);
}

TEST(Optimizer, NormAndClippingAreGlobal) {
  const std::vector<float> values{3, 0, -4};
  EXPECT_DOUBLE_EQ(global_norm(values), 5);
  EXPECT_DOUBLE_EQ(global_norm({}), 0);
  EXPECT_DOUBLE_EQ(clip_scale(5, 1), 0.2);
  EXPECT_DOUBLE_EQ(clip_scale(0.5, 1), 1);
  EXPECT_DOUBLE_EQ(clip_scale(5, 0), 1);
  EXPECT_TRUE(std::isnan(global_norm(std::vector<float>{1, NAN})));
}

TEST(Optimizer, NumberOfThreadsDoesNotChangeResults) {
  std::mt19937 random(test::seed(1));
  std::normal_distribution<float> normal;
  std::vector<float> start(300000), gradients(start.size());
  for (float& x : start) x = normal(random);
  for (float& g : gradients) g = normal(random);
  const auto run = [&](int threads) {
    at::set_num_threads(threads);
    std::vector<float> values = start;
    AdamW optimizer(static_cast<int64_t>(values.size()), 1000, {});
    for (int step = 0; step < 3; ++step) {
      optimizer.step(values, gradients, 0.01, clip_scale(global_norm(gradients), 1));
    }
    return values;
  };
  const std::vector<float> one = run(1), three = run(3);
  at::set_num_threads(1);
  EXPECT_EQ(one, three);
  EXPECT_NE(one, start);
}

}  // namespace
}  // namespace fathom::train
