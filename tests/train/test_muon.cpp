#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "train/muon.h"
#include "train/optimizer.h"

namespace fathom::train {
namespace {

at::Tensor orthogonalised(const at::Tensor& x) {
  at::Tensor y = x.clone();
  orthogonalise(y.size(0), y.size(1), y.data_ptr<float>());
  return y;
}

void muon_step(at::Tensor& values, const at::Tensor& gradient, at::Tensor& momentum, double rate, double scale,
               const MuonOptions& options) {
  const MuonMatrix matrix{values.size(0), values.size(1), values.data_ptr<float>(), gradient.data_ptr<float>(),
                          momentum.data_ptr<float>()};
  muon_step({&matrix, 1}, rate, scale, options);
}

/// The iteration in double, directly from its equation.
at::Tensor reference(const at::Tensor& x) {
  at::Tensor y = x.to(at::kDouble) / x.to(at::kDouble).norm();
  for (int i = 0; i < 5; ++i) {
    const at::Tensor square = at::mm(y, y.t());
    y = 3.4445 * y + at::mm(-4.7750 * square + 2.0315 * at::mm(square, square), y);
  }
  return y.to(at::kFloat);
}

TEST(Muon, EqualsTheReferenceIterationForAllShapes) {
  at::manual_seed(3);
  for (const auto& [rows, cols] : {std::pair{33, 33}, std::pair{17, 90}, std::pair{90, 17}, std::pair{1, 5}}) {
    const at::Tensor x = at::randn({rows, cols});
    EXPECT_TRUE(at::allclose(orthogonalised(x), reference(x), 1e-3, 1e-4)) << rows << " x " << cols;
  }
}

TEST(Muon, OrthogonalisedMatricesHaveSingularValuesNearOne) {
  at::manual_seed(1);
  for (const auto& [rows, cols] : {std::pair{24, 24}, std::pair{16, 40}, std::pair{40, 16}}) {
    const at::Tensor x = at::randn({rows, cols}), y = orthogonalised(x);
    ASSERT_EQ(y.sizes(), x.sizes());
    const at::Tensor square = rows > cols ? at::mm(y.t(), y) : at::mm(y, y.t());
    const at::Tensor values = at::linalg_eigvalsh(square).sqrt();
    EXPECT_GT(values.min().item<double>(), 0.3);
    EXPECT_LT(values.max().item<double>(), 1.3);
    // U·Vᵀ and x have the same singular vectors: their product is symmetric and positive
    const at::Tensor product = rows > cols ? at::mm(y.t(), x) : at::mm(x, y.t());
    EXPECT_LT((product - product.t()).abs().max().item<double>(), 1e-3 * product.abs().max().item<double>());
    EXPECT_GT(at::linalg_eigvalsh(product).min().item<double>(), 0);
  }
}

TEST(Muon, AStepEqualsItsEquations) {
  at::manual_seed(2);
  const at::Tensor start = at::randn({6, 10}), first = at::randn({6, 10}), second = at::randn({6, 10});
  at::Tensor values = start.clone(), momentum = at::zeros({6, 10});
  const MuonOptions options{.momentum = 0.9, .weight_decay = 0.5};
  muon_step(values, first, momentum, 0.1, 0.5, options);
  muon_step(values, second, momentum, 0.1, 1, options);
  const at::Tensor m1 = first * 0.5, m2 = m1 * 0.9 + second;
  const double scale = 0.1 * 0.2 * std::sqrt(10.0);
  const at::Tensor after = start * 0.95 - orthogonalised(m1 * 0.9 + first * 0.5) * scale;
  EXPECT_TRUE(at::allclose(values, after * 0.95 - orthogonalised(m2 * 0.9 + second) * scale, 1e-4, 1e-5));
  EXPECT_TRUE(at::allclose(momentum, m2, 1e-5, 1e-6));
}

TEST(Muon, AdamWDoesNotChangeTheValuesOfMuon) {
  std::vector<float> values(10, 1), gradients(10, 1);
  AdamW optimizer(10, 10, {}, {3, 7});
  optimizer.step(values, gradients, 0.1);
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(values[i] == 1, i >= 3 && i < 7) << i;
    EXPECT_EQ(optimizer.first_moments()[i] == 0, i >= 3 && i < 7) << i;
  }
}

}  // namespace
}  // namespace fathom::train
