#include "train/trainable.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cassert>

namespace fathom::train {

void Agreement::add(size_t step, double equal_weight, double all_weight) {
  if (all.size() <= step) {
    equal.resize(step + 1);
    all.resize(step + 1);
  }
  equal[step] += equal_weight;
  all[step] += all_weight;
}

std::vector<double> Agreement::shares() const {
  std::vector<double> shares;
  for (size_t i = 0; i < all.size(); ++i) shares.push_back(all[i] > 0 ? equal[i] / all[i] : 0);
  return shares;
}

void Trainable::add_parameter(const std::string& name, int64_t rows, int64_t cols, bool in_layer) {
  parameters_.push_back({name, rows, cols, in_layer && rows > 0});
}

void Trainable::allocate(at::Device device) {
  const auto group = [](const NetParameter& p) { return p.rows == 0 ? 2 : p.in_layer ? 1 : 0; };
  std::ranges::stable_sort(parameters_, {}, group);
  int64_t count = 0;
  for (NetParameter& p : parameters_) {
    p.offset = count;
    count += p.size();
    if (p.rows > 0) matrix_values_ = count;
  }
  values_ = at::zeros({count}, at::device(device).dtype(at::kFloat));
  gradients_ = at::zeros({count}, at::device(device).dtype(at::kFloat));
  for (NetParameter& p : parameters_) {
    const std::vector<int64_t> shape = p.rows > 0 ? std::vector<int64_t>{p.rows, p.cols} : std::vector{p.cols};
    p.value = values_.narrow(0, p.offset, p.size()).view(shape).detach().requires_grad_(true);
    p.value.mutable_grad() = gradients_.narrow(0, p.offset, p.size()).view(shape);
  }
}

const at::Tensor& Trainable::parameter(const std::string& name) const {
  const auto found =
      std::find_if(parameters_.begin(), parameters_.end(), [&](const NetParameter& p) { return p.name == name; });
  assert(found != parameters_.end());
  return found->value;
}

}  // namespace fathom::train
