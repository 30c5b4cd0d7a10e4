#include "train/random_values.h"

#include <ATen/ATen.h>

#include <cmath>

#include "eval/rng.h"

namespace fathom::train {

void draw_uniform(const Trainable& net, uint64_t seed, double limit) {
  eval::Rng rng(seed, "uniform values", 0, 0);
  const at::Tensor host = at::empty(net.values().sizes(), at::kFloat);
  for (int64_t i = 0; i < host.numel(); ++i)
    host.data_ptr<float>()[i] = static_cast<float>((2 * rng.uniform() - 1) * limit);
  net.values().copy_(host);
}

void draw_normal(const Trainable& net, const std::string& name, uint64_t seed, double deviation) {
  eval::Rng rng(seed, name, 0, 0);
  const at::Tensor to = net.parameter(name).detach(), host = at::empty(to.sizes(), at::kFloat);
  for (int64_t i = 0; i < host.numel(); ++i) {  // Box and Muller
    const double normal = std::sqrt(-2 * std::log(1 - rng.uniform())) * std::cos(2 * M_PI * rng.uniform());
    host.data_ptr<float>()[i] = static_cast<float>(normal * deviation);
  }
  to.copy_(host);
}

}  // namespace fathom::train
