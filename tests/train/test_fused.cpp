// Hand-written layers against the plain ones: the same values, the same gradients.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <array>
#include <functional>

#include "train/layer_ops.h"

namespace fathom {
namespace {

using Tensors = std::vector<at::Tensor>;

at::Tensor random(at::IntArrayRef shape) { return at::randn(shape).requires_grad_(); }

/// The relative distance of two tensors; of those that are nearly nothing the absolute one.
double distance(const at::Tensor& a, const at::Tensor& b) {
  return ((a - b).norm() / (b.norm() + 0.1)).item<double>();
}

/// That both functions give the same result, and the same gradients of a random sum of it by all inputs.
void expect_same(const Tensors& inputs, const std::function<at::Tensor(const Tensors&)>& plain,
                 const std::function<at::Tensor(const Tensors&)>& fused) {
  const at::Tensor expected = plain(inputs), found = fused(inputs);
  ASSERT_EQ(found.sizes(), expected.sizes());
  EXPECT_LT(distance(found, expected), 1e-5);
  const at::Tensor weights = at::randn_like(expected);
  const auto gradients = [&](const at::Tensor& y) { return torch::autograd::grad({(y * weights).sum()}, inputs); };
  const Tensors expected_gradients = gradients(expected), found_gradients = gradients(found);
  for (size_t i = 0; i < inputs.size(); ++i) {
    ASSERT_EQ(found_gradients[i].sizes(), inputs[i].sizes());
    EXPECT_LT(distance(found_gradients[i], expected_gradients[i]), 2e-5) << "of input " << i;
  }
}

TEST(FusedLayers, LinearIsTheProduct) {
  at::manual_seed(1);
  for (const auto& [rows, in, out] : {std::tuple(1, 5, 3), std::tuple(7, 64, 33), std::tuple(130, 192, 640)}) {
    expect_same(
        {random({2, rows, in}), random({out, in})}, [](const Tensors& x) { return plain_ops().linear(x[0], x[1]); },
        [](const Tensors& x) { return fused_ops().linear(x[0], x[1]); });
  }
}

TEST(FusedLayers, RmsNormIsTheNorm) {
  at::manual_seed(2);
  for (const int64_t width : {1, 7, 192}) {
    expect_same(
        {random({3, 50, width}), random({width})},
        [](const Tensors& x) { return plain_ops().rms_norm(x[0], x[1], 1e-5, at::kFloat); },
        [](const Tensors& x) { return fused_ops().rms_norm(x[0], x[1], 1e-5, at::kFloat); });
  }
}

TEST(FusedLayers, RotaryTurnsThePairs) {
  at::manual_seed(3);
  for (const int64_t pairs : {4, 32, 20}) {  // the last leaves dimensions as they are
    const at::Tensor angles = at::randn({70, pairs});
    expect_same(
        {random({2, 70, 3, pairs == 20 ? 64 : 2 * pairs})},
        [&](const Tensors& x) { return plain_ops().rotary(x[0], angles.cos(), angles.sin()); },
        [&](const Tensors& x) { return fused_ops().rotary(x[0], angles.cos(), angles.sin()); });
  }
}

TEST(FusedLayers, LinearsAreTheirProductsSideBySide) {
  at::manual_seed(8);
  const auto joined = [](const std::array<at::Tensor, 3>& y) { return at::cat({y[0], y[1], y[2]}, 2); };
  expect_same(
      {random({2, 131, 40}), random({33, 40}), random({7, 40}), random({64, 40})},
      [&](const Tensors& x) {
        return joined(plain_ops().linears(x[0], {x[1], x[2], x[3]}));
      },
      [&](const Tensors& x) {
        return joined(fused_ops().linears(x[0], {x[1], x[2], x[3]}));
      });
}

TEST(FusedLayers, AddLinearAddsToTheResidual) {
  at::manual_seed(9);
  expect_same(
      {random({2, 131, 33}), random({2, 131, 40}), random({33, 40})},
      [](const Tensors& x) { return plain_ops().add_linear(x[0], x[1], x[2]); },
      [](const Tensors& x) { return fused_ops().add_linear(x[0], x[1], x[2]); });
}

TEST(FusedLayers, SwigluIsTheGate) {
  at::manual_seed(4);
  expect_same(
      {random({2, 133, 20}), random({65, 20}), random({65, 20})},
      [](const Tensors& x) { return plain_ops().swiglu(x[0], x[1], x[2]); },
      [](const Tensors& x) { return fused_ops().swiglu(x[0], x[1], x[2]); });
}

TEST(FusedLayers, AttentionIsTheSoftmaxOverWhatIsSeen) {
  at::manual_seed(5);
  for (const auto& [length, heads, kv_heads, window] :
       {std::tuple(1, 1, 1, 0), std::tuple(63, 3, 1, 0), std::tuple(130, 4, 2, 0), std::tuple(200, 2, 2, 17),
        std::tuple(600, 2, 1, 0), std::tuple(600, 2, 1, 290)}) {
    SCOPED_TRACE(testing::Message() << length << " tokens, window " << window);
    expect_same(
        {random({2, length, heads, 16}), random({2, length, kv_heads, 16}), random({2, length, kv_heads, 24})},
        [window = window](const Tensors& x) {
          return plain_ops().attention({x[0], x[1], x[2], 0.3, window});
        },
        [window = window](const Tensors& x) {
          return fused_ops().attention({x[0], x[1], x[2], 0.3, window});
        });
  }
}

TEST(FusedLayers, CrossEntropyIsTheWeightedLoss) {
  at::manual_seed(6);
  for (const int64_t rows : {1, 255, 600}) {
    const at::Tensor targets = at::randint(0, 97, {rows}), weights = at::rand({rows});
    if (rows > 1) weights.narrow(0, rows / 3, rows / 2).zero_();
    expect_same(
        {random({rows, 24}), random({97, 24})},
        [&](const Tensors& x) { return plain_ops().cross_entropy(x[0], x[1], targets, weights); },
        [&](const Tensors& x) { return fused_ops().cross_entropy(x[0], x[1], targets, weights); });
  }
}

TEST(FusedLayers, AreTheSameBitsEachTime) {
  at::manual_seed(7);
  const at::Tensor q = random({2, 130, 4, 16}), k = random({2, 130, 2, 16}), v = random({2, 130, 2, 16});
  const auto run = [&] {
    const at::Tensor y = fused_ops().attention({q, k, v, 0.25, 0});
    return torch::autograd::grad({y.square().sum()}, {q, k, v});
  };
  const Tensors first = run(), second = run();
  for (size_t i = 0; i < first.size(); ++i) EXPECT_TRUE(at::equal(first[i], second[i]));
}

}  // namespace
}  // namespace fathom
