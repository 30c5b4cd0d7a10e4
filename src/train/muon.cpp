#include "train/muon.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace fathom {

at::Tensor orthogonalised(const at::Tensor& x) {
  constexpr double kA = 3.4445, kB = -4.7750, kC = 2.0315;  // steepest at 0 that still stays near 1
  constexpr int kSteps = 5;
  const bool tall = x.size(0) > x.size(1);
  at::Tensor y = tall ? x.t().contiguous() : x.clone();
  y.div_(y.norm().add_(1e-7));
  for (int i = 0; i < kSteps; ++i) {
    const at::Tensor square = at::mm(y, y.t());
    const at::Tensor polynomial = at::addmm(square, square, square, kB, kC);
    y = at::addmm(y, polynomial, y, kA, 1);
  }
  return tall ? y.t() : y;
}

void muon_step(const at::Tensor& values, const at::Tensor& gradient, const at::Tensor& momentum,
               double learning_rate, double gradient_scale, const MuonOptions& options) {
  const at::NoGradGuard no_gradients;
  momentum.mul_(options.momentum).add_(gradient, gradient_scale);
  const at::Tensor ahead = at::mul(momentum, options.momentum).add_(gradient, gradient_scale);
  const double scale = 0.2 * std::sqrt(static_cast<double>(std::max(values.size(0), values.size(1))));
  values.mul_(1 - learning_rate * options.weight_decay).sub_(orthogonalised(ahead), learning_rate * scale);
}

}  // namespace fathom
