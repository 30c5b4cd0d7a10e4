// Compares values and gradients of hand-written layers with the plain ones, with f32 and bfloat16 products.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <array>
#include <functional>

#include "train/layer_ops.h"
#include "train/net.h"
#include "train/tiny_net.h"

namespace fathom::train {
namespace {

using Tensors = std::vector<at::Tensor>;

at::Tensor random(at::IntArrayRef shape) { return at::randn(shape).requires_grad_(); }

/// Returns the relative distance of two tensors; for tensors near 0 a scaled absolute distance.
double distance(const at::Tensor& a, const at::Tensor& b) {
  return ((a - b).norm() / (b.norm() + 0.1)).item<double>();
}

/// Returns the gradients of a random weighted sum of `y` with respect to all inputs, then y.
Tensors result_and_gradients(const Tensors& inputs, const at::Tensor& y) {
  at::manual_seed(1);
  Tensors all = torch::autograd::grad({(y * at::randn(y.sizes())).sum()}, inputs);
  all.push_back(y);
  return all;
}

class FusedLayers : public testing::TestWithParam<Factors> {
 protected:
  void SetUp() override {
    if (!has_products_of(GetParam())) GTEST_SKIP() << "this machine has no AVX512-BF16";
  }
  const LayerOps& ops() const { return fused_ops(GetParam()); }

  /// Expects that a layer's result and gradients equal the plain ones except for rounding.
  void expect_same(const Tensors& inputs,
                   const std::function<at::Tensor(const LayerOps& ops, const Tensors& inputs)>& layer) const {
    const Tensors expected = result_and_gradients(inputs, layer(plain_ops(), inputs)),
                  found = result_and_gradients(inputs, layer(ops(), inputs));
    for (size_t i = 0; i < found.size(); ++i) {
      ASSERT_EQ(found[i].sizes(), expected[i].sizes());
      EXPECT_LT(distance(found[i], expected[i]), GetParam() == Factors::kBF16 ? 0.01 : 1e-5)
          << (i < inputs.size() ? "gradient of input " : "result ") << i;
    }
  }
};

TEST_P(FusedLayers, LinearEqualsThePlainProduct) {
  at::manual_seed(1);
  for (const auto& [rows, in, out] : {std::tuple(1, 5, 3), std::tuple(7, 64, 33), std::tuple(130, 192, 640)}) {
    expect_same({random({2, rows, in}), random({out, in})},
                [](const LayerOps& ops, const Tensors& x) { return ops.linear(x[0], x[1]); });
  }
}

TEST_P(FusedLayers, RmsNormEqualsThePlainNorm) {
  at::manual_seed(2);
  for (const int64_t width : {1, 7, 192}) {
    expect_same({random({3, 50, width}), random({width})},
                [](const LayerOps& ops, const Tensors& x) { return ops.rms_norm(x[0], x[1], 1e-5, at::kFloat); });
  }
}

TEST_P(FusedLayers, RotaryEqualsThePlainRotation) {
  at::manual_seed(3);
  for (const int64_t pairs : {4, 32, 20}) {  // the last has dimensions that are not rotated
    const at::Tensor angles = at::randn({70, pairs});
    expect_same({random({2, 70, 3, pairs == 20 ? 64 : 2 * pairs})}, [&](const LayerOps& ops, const Tensors& x) {
      return ops.rotary(x[0], angles.cos(), angles.sin());
    });
  }
}

TEST_P(FusedLayers, LinearsEqualThePlainProducts) {
  at::manual_seed(8);
  expect_same({random({2, 131, 40}), random({33, 40}), random({7, 40}), random({64, 40})},
              [](const LayerOps& ops, const Tensors& x) {
                const std::array<at::Tensor, 3> y = ops.linears(x[0], {x[1], x[2], x[3]});
                return at::cat({y[0], y[1], y[2]}, 2);
              });
}

TEST_P(FusedLayers, AddLinearAddsToTheResidual) {
  at::manual_seed(9);
  expect_same({random({2, 131, 33}), random({2, 131, 40}), random({33, 40})},
              [](const LayerOps& ops, const Tensors& x) { return ops.add_linear(x[0], x[1], x[2]); });
}

TEST_P(FusedLayers, SwigluEqualsThePlainOne) {
  at::manual_seed(4);
  expect_same({random({2, 133, 20}), random({65, 20}), random({65, 20})},
              [](const LayerOps& ops, const Tensors& x) { return ops.swiglu(x[0], x[1], x[2]); });
}

TEST_P(FusedLayers, AttentionEqualsThePlainOne) {
  at::manual_seed(5);
  for (const auto& [length, heads, kv_heads, window] :
       {std::tuple(1, 1, 1, 0), std::tuple(63, 3, 1, 0), std::tuple(130, 4, 2, 0), std::tuple(200, 2, 2, 17),
        std::tuple(600, 2, 1, 0), std::tuple(600, 2, 1, 290)}) {
    if (length == 1 && GetParam() == Factors::kBF16)
      continue;  // the gradients of q and k are 0, so there is no relative error
    SCOPED_TRACE(testing::Message() << length << " tokens, window " << window);
    expect_same(
        {random({2, length, heads, 16}), random({2, length, kv_heads, 16}), random({2, length, kv_heads, 24})},
        [window = window](const LayerOps& ops, const Tensors& x) {
          return ops.attention({x[0], x[1], x[2], 0.3, window});
        });
  }
}

TEST_P(FusedLayers, CrossEntropyEqualsThePlainOne) {
  at::manual_seed(6);
  for (const int64_t rows : {1, 255, 600}) {
    const at::Tensor targets = at::randint(0, 97, {rows}), weights = at::rand({rows});
    if (rows > 1) weights.narrow(0, rows / 3, rows / 2).zero_();
    expect_same({random({rows, 24}), random({97, 24})}, [&](const LayerOps& ops, const Tensors& x) {
      return ops.cross_entropy(x[0], x[1], targets, weights);
    });
  }
}

TEST_P(FusedLayers, SoftCrossEntropyEqualsThePlainOne) {
  at::manual_seed(11);
  for (const int64_t rows : {1, 255, 600}) {
    const at::Tensor shares = at::softmax(at::randn({rows + 3, 97}) * 2, -1), weights = at::rand({rows});
    const at::Tensor share_rows = at::randint(0, rows + 3, {rows}, at::kLong);
    if (rows > 1) weights.narrow(0, rows / 3, rows / 2).zero_();
    expect_same({random({rows, 24}), random({97, 24})}, [&](const LayerOps& ops, const Tensors& x) {
      return ops.soft_cross_entropy(x[0], x[1], shares, share_rows, weights);
    });
  }
}

TEST_P(FusedLayers, FrozenWeightsDoNotChangeOtherGradients) {
  at::manual_seed(12);
  const at::Tensor frozen = at::randn({32, 32});
  const at::Tensor shares = at::softmax(at::randn({30, 32}), -1), rows = at::arange(30);
  expect_same({random({30, 32})}, [&](const LayerOps& ops, const Tensors& x) {
    const auto [a, b, c] = ops.linears(x[0], {frozen, frozen + 1, frozen});
    const at::Tensor y = ops.add_linear(a, ops.swiglu(b + c, frozen, frozen), frozen);
    return ops.soft_cross_entropy(y * 0.01, frozen, shares, rows, at::ones({30}));
  });
  expect_same({random({32, 32})}, [&](const LayerOps& ops, const Tensors& x) {
    return ops.swiglu(ops.linear(frozen, x[0]), frozen, frozen);
  });
}

TEST_P(FusedLayers, AWholeNetHasThePlainGradients) {
  at::manual_seed(10);
  const at::Tensor tokens = at::randint(40, {3, 101}), weights = at::rand({3, 100});
  const auto gradients = [&](const LayerOps& layers) {
    Net net(test::tiny_config(), layers);
    net.initialise(5, 0.2);
    net.loss(net.weights(at::kFloat), tokens, weights).backward();
    return net.gradients();
  };
  EXPECT_LT(distance(gradients(ops()), gradients(plain_ops())), GetParam() == Factors::kBF16 ? 0.02 : 1e-5);
}

TEST_P(FusedLayers, RepeatedCallsGiveTheSameBits) {
  at::manual_seed(7);
  const at::Tensor q = random({2, 130, 4, 16}), k = random({2, 130, 2, 16}), v = random({2, 130, 2, 16});
  const auto run = [&] {
    const at::Tensor y = ops().attention({q, k, v, 0.25, 0});
    return torch::autograd::grad({y.square().sum()}, {q, k, v});
  };
  const Tensors first = run(), second = run();
  for (size_t i = 0; i < first.size(); ++i) EXPECT_TRUE(at::equal(first[i], second[i]));
}

INSTANTIATE_TEST_SUITE_P(Factors, FusedLayers, testing::Values(Factors::kF32, Factors::kBF16),
                         [](const auto& param) { return param.param == Factors::kF32 ? "f32" : "bf16"; });

}  // namespace
}  // namespace fathom::train
