#include "train/state_optimisation.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "train/masked_attention.h"

namespace fathom::train {
namespace {

// Adam's constants. The loss is a sum over a window, so gradients are large compared with kStateEps.
constexpr double kStateBeta1 = 0.9, kStateBeta2 = 0.95, kStateEps = 1e-8;

const StateStepOptions& checked_options(const StateStepOptions& options, const ModelConfig& model) {
  if (options.window < 1) fail_usage("window is ", options.window, ", expected 1 token or more");
  if (!std::isfinite(options.rate) || options.rate < 0) {
    fail_usage("rate of the state optimisation is ", options.rate, ", expected a number of 0 or more");
  }
  if (options.steps < 0) fail_usage("state steps are ", options.steps, ", expected 0 or more");
  if (options.memory < 0) fail_usage("memory is ", options.memory, " tokens, expected 0 (all) or more");
  if (model.softplus || model.landmarks) {
    fail_usage("the states of a model with ", model.softplus ? "softplus attention" : "landmarks",
               " cannot be optimised; expected softmax attention without landmarks");
  }
  return options;
}

at::Tensor checked_tokens(std::span<const int32_t> tokens, int64_t vocabulary) {
  if (tokens.size() < 2) fail_usage("a window of ", tokens.size(), " tokens: expected 2 or more");
  const at::Tensor ids = at::empty({static_cast<int64_t>(tokens.size())}, at::kLong);
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= vocabulary) {
      fail_usage("token ", tokens[i], " is not in the model's vocabulary of ", vocabulary, " tokens");
    }
    ids.data_ptr<int64_t>()[i] = tokens[i];
  }
  return ids;
}

/// Returns the newest `count` entries of a dimension, or all if there are fewer.
at::Tensor newest_of(const at::Tensor& from, int64_t dimension, int64_t count) {
  const int64_t kept = std::min(count, from.size(dimension));
  return from.narrow(dimension, from.size(dimension) - kept, kept);
}

}  // namespace

StateOptimiser::StateOptimiser(Net& net, const StateStepOptions& options)
    : net_(net), options_(checked_options(options, net.config().model)), weights_(net.frozen_weights(at::kFloat)) {
  const ModelConfig& c = net.config().model;
  const auto empty = [&](int64_t dimensions) {
    return at::empty({1, 0, c.kv_heads, dimensions}, net.values().options());
  };
  const at::Tensor k = empty(c.key_dim), v = empty(c.value_dim);
  states_.assign(c.layers, {k, v});
  moments_.assign(c.layers, {{k, k}, {v, v}});
  ages_ = at::empty({0}, net.values().options());
}

at::Tensor StateOptimiser::masked(int64_t rows) const {
  const int64_t cached = ages_.numel(), window = net_.config().model.sliding_window;
  const at::Tensor positions = at::arange(read_ - cached, read_ + rows, ages_.options().dtype(at::kLong));
  const at::Tensor ahead = positions.unsqueeze(0) - positions.narrow(0, cached, rows).unsqueeze(1);
  const at::Tensor hidden = window > 0 ? ahead.gt(0).logical_or(ahead.le(-window)) : ahead.gt(0);
  return hidden.unsqueeze(0);
}

StateOptimiser::Pass StateOptimiser::pass(const at::Tensor& tokens) {
  const int64_t rows = tokens.numel() - 1;
  const at::Tensor hidden = masked(rows);
  const Angles angles = net_.angles().range(read_, rows);
  at::Tensor x = Net::embeddings(weights_, tokens.narrow(0, 0, rows).unsqueeze(0));
  Pass pass;
  for (int layer = 0; layer < net_.config().model.layers; ++layer) {
    const Net::AttentionRows own = net_.attention_rows(weights_, layer, x, angles);
    const LayerStates& cached = states_[layer];
    const at::Tensor attended = masked_attention(own.q, at::cat({cached.k, own.k}, 1),
                                                 at::cat({cached.v, own.v}, 1), net_.score_scale(), hidden);
    x = net_.finish_layer(weights_, layer, x, attended);
    pass.rows.push_back({own.k.detach(), own.v.detach()});
  }
  pass.loss = net_.ops().cross_entropy(net_.normed_output(weights_, x).flatten(0, 1), weights_.output,
                                       tokens.narrow(0, 1, rows), at::ones({rows}, ages_.options()));
  return pass;
}

WindowLoss StateOptimiser::read(std::span<const int32_t> tokens) {
  const at::Tensor ids = checked_tokens(tokens, net_.vocabulary()).to(net_.values().device());
  require_gradients(optimises());
  Pass now = pass(ids);
  const WindowLoss loss{static_cast<int64_t>(tokens.size()) - 1, now.loss.item<double>()};
  if (!std::isfinite(loss.nats)) {
    fail("the loss after token ", read_, " is not finite; expected a smaller rate of the state optimisation");
  }
  for (int64_t i = 0; optimises() && i < options_.steps; ++i) {
    if (i > 0) {
      require_gradients(true);
      now = pass(ids);
    }
    now.loss.backward();
    step();
  }
  append(now.rows);
  return loss;
}

void StateOptimiser::require_gradients(bool required) {
  for (LayerStates& s : states_) {
    for (at::Tensor* state : {&s.k, &s.v}) *state = state->detach().requires_grad_(required);
  }
}

void StateOptimiser::step() {
  const at::NoGradGuard no_gradients;
  ages_ = ages_ + 1;
  for (size_t layer = 0; layer < states_.size(); ++layer) {
    move(states_[layer].k, moments_[layer].first);
    move(states_[layer].v, moments_[layer].second);
  }
}

void StateOptimiser::move(at::Tensor& state, Moments& moments) const {
  const at::Tensor gradient = state.grad();
  const auto remaining = [&](double beta) {  // 1 − beta^steps of each token
    return (1 - at::pow(beta, ages_)).view({1, -1, 1, 1});
  };
  moments.first = moments.first * kStateBeta1 + gradient * (1 - kStateBeta1);
  moments.second = moments.second * kStateBeta2 + gradient.square() * (1 - kStateBeta2);
  const at::Tensor root = (moments.second / remaining(kStateBeta2)).sqrt() + kStateEps;
  state = state.detach() - moments.first / remaining(kStateBeta1) / root * options_.rate;
}

void StateOptimiser::append(const std::vector<LayerStates>& rows) {
  const int64_t count = rows.front().k.size(1), kept = options_.memory > 0 ? options_.memory : read_ + count;
  const auto extend = [&](at::Tensor& to, const at::Tensor& from) {
    to = newest_of(at::cat({to.detach(), from}, 1), 1, kept);
  };
  for (size_t layer = 0; layer < states_.size(); ++layer) {
    const auto& [k, v] = rows[layer];
    extend(states_[layer].k, k);
    extend(states_[layer].v, v);
    if (options_.steps == 0) continue;
    auto& [of_keys, of_values] = moments_[layer];
    for (at::Tensor* moment : {&of_keys.first, &of_keys.second}) extend(*moment, at::zeros_like(k));
    for (at::Tensor* moment : {&of_values.first, &of_values.second}) extend(*moment, at::zeros_like(v));
  }
  ages_ = newest_of(at::cat({ages_, at::zeros({count}, ages_.options())}), 0, kept);
  read_ += count;
}

std::vector<WindowLoss> window_losses(Net& net, std::span<const int32_t> tokens, const StateStepOptions& options,
                                      const std::function<void(int64_t done)>& progress) {
  StateOptimiser optimiser(net, options);
  const auto predicted = static_cast<int64_t>(tokens.size()) - 1;
  if (predicted < 1) fail("nothing to score: the text needs a token after the first");
  std::vector<WindowLoss> losses;
  for (int64_t begin = 0; begin < predicted; begin += options.window) {
    const int64_t count = std::min(options.window, predicted - begin);
    losses.push_back(optimiser.read(tokens.subspan(begin, count + 1)));
    if (progress) progress(begin + count);
  }
  return losses;
}

double mean_loss(std::span<const WindowLoss> windows) {
  WindowLoss sum;
  for (const WindowLoss& w : windows) {
    sum.tokens += w.tokens;
    sum.nats += w.nats;
  }
  return sum.nats / static_cast<double>(sum.tokens);
}

}  // namespace fathom::train
