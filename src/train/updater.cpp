#include "train/updater.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "train/muon.h"
#include "train/optimizer.h"

namespace fathom::train {
namespace {

AdamWOptions adamw_options(const TrainConfig& c) {
  return {.beta1 = c.optimizer.beta1,
          .beta2 = c.optimizer.beta2,
          .eps = c.optimizer.eps,
          .weight_decay = c.optimizer.weight_decay};
}

MuonOptions muon_options(const TrainConfig& c) { return {c.optimizer.momentum, c.optimizer.weight_decay}; }

/// Returns the values that Muon updates instead of AdamW. The matrices of layers are contiguous.
ValueRange values_of_muon(const TrainConfig& config, const Trainable& net) {
  const auto first = std::ranges::find_if(net.parameters(), &NetParameter::in_layer);
  if (config.optimizer.kind != "muon" || first == net.parameters().end()) return {};
  return {first->offset, net.matrix_values()};
}

std::span<float> values_of(const at::Tensor& flat) {
  return {flat.data_ptr<float>(), static_cast<size_t>(flat.numel())};
}

class LoopUpdater final : public Updater {
 public:
  LoopUpdater(const TrainConfig& config, Trainable& net)
      : net_(net),
        muon_options_(muon_options(config)),
        adamw_(net.values().numel(), net.matrix_values(), adamw_options(config), values_of_muon(config, net)) {
    if (config.optimizer.kind != "muon") return;
    for (const NetParameter& p : net.parameters()) {
      if (!p.in_layer) continue;
      muon_.push_back({p.rows, p.cols, net.values().data_ptr<float>() + p.offset,
                       net.gradients().data_ptr<float>() + p.offset, adamw_.first_moments().data() + p.offset});
    }
  }
  double gradient_norm() const override { return global_norm(values_of(net_.gradients())); }
  void step(double learning_rate, double gradient_scale) override {
    adamw_.step(values_of(net_.values()), values_of(net_.gradients()), learning_rate, gradient_scale);
    muon_step(muon_, learning_rate, gradient_scale, muon_options_);
  }
  void set_steps(int64_t steps) override { adamw_.set_steps(steps); }
  at::Tensor first_moments() override { return view(adamw_.first_moments()); }
  at::Tensor second_moments() override { return view(adamw_.second_moments()); }

 private:
  static at::Tensor view(std::span<float> values) {
    return at::from_blob(values.data(), {static_cast<int64_t>(values.size())}, at::kFloat);
  }
  Trainable& net_;
  MuonOptions muon_options_;
  AdamW adamw_;
  std::vector<MuonMatrix> muon_;
};

/// The same as orthogonalise() of muon.h, with libtorch's operations.
at::Tensor orthogonalised(const at::Tensor& x) {
  const bool tall = x.size(0) > x.size(1);
  at::Tensor y = tall ? x.t() : x;
  y = y / (y.norm() + 1e-7);
  for (int i = 0; i < kMuonSteps; ++i) {
    const at::Tensor square = at::mm(y, y.t());
    y = at::addmm(y, at::addmm(square, square, square, kMuonB, kMuonC), y, kMuonA, 1);
  }
  return tall ? y.t() : y;
}

class TensorUpdater final : public Updater {
 public:
  TensorUpdater(const TrainConfig& config, Trainable& net)
      : net_(net),
        adamw_(adamw_options(config)),
        muon_(muon_options(config)),
        others_(values_of_muon(config, net)),
        first_(at::zeros_like(net.values())),
        second_(at::zeros_like(net.values())) {}

  double gradient_norm() const override {
    return std::sqrt(net_.gradients().square().sum(at::kDouble).item<double>());
  }
  void step(double learning_rate, double gradient_scale) override {
    const at::NoGradGuard no_gradients;
    ++steps_;
    const int64_t all = net_.values().numel(), matrices = net_.matrix_values();
    const bool muon = others_.end > others_.begin;
    adamw(0, muon ? others_.begin : matrices, learning_rate, gradient_scale, adamw_.weight_decay);
    adamw(matrices, all, learning_rate, gradient_scale, 0);
    for (const NetParameter& p : net_.parameters()) {
      if (muon && p.in_layer) move_matrix(p, learning_rate, gradient_scale);
    }
  }
  void set_steps(int64_t steps) override { steps_ = steps; }
  at::Tensor first_moments() override { return first_; }
  at::Tensor second_moments() override { return second_; }

 private:
  void adamw(int64_t begin, int64_t end, double learning_rate, double gradient_scale, double weight_decay) {
    if (begin == end) return;
    const auto part = [&](const at::Tensor& flat) { return flat.narrow(0, begin, end - begin); };
    const at::Tensor g = part(net_.gradients()) * gradient_scale, m = part(first_), v = part(second_);
    m.mul_(adamw_.beta1).add_(g, 1 - adamw_.beta1);
    v.mul_(adamw_.beta2).addcmul_(g, g, 1 - adamw_.beta2);
    const auto n = static_cast<double>(steps_);
    const double rate = learning_rate / (1 - std::pow(adamw_.beta1, n));
    const double root_correction = 1 / std::sqrt(1 - std::pow(adamw_.beta2, n));
    part(net_.values())
        .mul_(1 - learning_rate * weight_decay)
        .addcdiv_(m, v.sqrt().mul_(root_correction).add_(adamw_.eps), -rate);
  }
  void move_matrix(const NetParameter& p, double learning_rate, double gradient_scale) {
    const auto part = [&](const at::Tensor& flat) {
      return flat.narrow(0, p.offset, p.size()).view({p.rows, p.cols});
    };
    const at::Tensor g = part(net_.gradients()) * gradient_scale, momentum = part(first_);
    momentum.mul_(muon_.momentum).add_(g);
    part(net_.values())
        .mul_(1 - learning_rate * muon_.weight_decay)
        .sub_(orthogonalised(momentum * muon_.momentum + g), learning_rate * muon_scale(p.rows, p.cols));
  }

  Trainable& net_;
  AdamWOptions adamw_;
  MuonOptions muon_;
  ValueRange others_;
  at::Tensor first_, second_;
  int64_t steps_ = 0;
};

}  // namespace

std::unique_ptr<Updater> make_updater(const TrainConfig& config, Trainable& net) {
  if (!net.values().device().is_cpu()) return make_tensor_updater(config, net);
  return std::make_unique<LoopUpdater>(config, net);
}

std::unique_ptr<Updater> make_tensor_updater(const TrainConfig& config, Trainable& net) {
  return std::make_unique<TensorUpdater>(config, net);
}

}  // namespace fathom::train
