#include "train/net.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "base/error.h"
#include "mixers/attention_mixer.h"
#include "position/rotary.h"

namespace fathom::train {
namespace {

void check_positive(const char* what, int64_t value) {
  if (value < 1) fail_usage("the net's ", what, " is ", value, ", expected 1 or more");
}

void check_rotary(const ModelConfig& c) {
  using Scaling = RotaryConfig::Scaling;
  if (c.rotary.dims < 0 || c.rotary.dims > c.key_dim || c.rotary.dims % 2 != 0) {
    fail_usage("the net has ", c.rotary.dims, " rotary dimensions, expected an even number up to the head's ",
               c.key_dim);
  }
  if (c.rotary.pairing != RotaryConfig::Pairing::kInterleaved) {
    fail_usage("the net's rotary pairs are (i, i + dims/2), expected a llama's (2i, 2i + 1)");
  }
  if (c.rotary.scaling == Scaling::kNtk || c.rotary.scaling == Scaling::kLongRope) {
    fail_usage("this rotary scaling cannot be trained; expected none, linear or yarn");
  }
}

void check(const ModelConfig& c) {
  if (c.architecture != "llama")
    fail_usage("architecture '", c.architecture, "' cannot be trained; expected llama");
  const std::pair<const char*, int64_t> sizes[] = {
      {"layers", c.layers},       {"width", c.width},           {"heads", c.heads},
      {"kv_heads", c.kv_heads},   {"key_dim", c.key_dim},       {"value_dim", c.value_dim},
      {"ffn_width", c.ffn_width}, {"vocabulary", c.vocabulary}, {"trained context", c.trained_context}};
  for (const auto& [what, value] : sizes) check_positive(what, value);
  if (c.heads % c.kv_heads != 0) {
    fail_usage(c.heads, " heads are not a multiple of ", c.kv_heads, " key/value heads");
  }
  if (c.key_dim % 2 != 0 || std::max(c.key_dim, c.value_dim) > kMaxHeadDim) {
    fail_usage("heads of ", c.key_dim, " key and ", c.value_dim, " value dimensions: expected at most ",
               kMaxHeadDim, ", and an even number for keys");
  }
  if (!(c.norm_eps > 0 && c.norm_eps < 1)) {
    fail_usage("norm epsilon is ", c.norm_eps, ", expected a small positive number");
  }
  if (c.softplus_power > 0 && c.softplus_power < 1) {
    fail_usage("softplus power ", c.softplus_power, " cannot be trained; expected 0, or 1 or more");
  }
  if (c.landmarks && c.softplus) fail_usage("landmarks and softplus attention cannot be trained together");
  if (c.landmarks.tokens < 0 || c.landmarks.tokens > kMaxLandmarkTokens || (c.landmarks && c.sliding_window > 0)) {
    fail_usage("landmarks after every ", c.landmarks.tokens, " tokens: expected 0 (none) to ", kMaxLandmarkTokens,
               ", and no sliding window");
  }
  check_rotary(c);
}

bool writes_to_residual(const std::string& name) {
  return name.ends_with("attn_output.weight") || name.ends_with("ffn_down.weight");
}

/// Returns the config with the rotary numbers rounded as in GGUF files. Throws Error (usage) if it is invalid.
NetConfig checked(NetConfig config) {
  ModelConfig& c = config.model;
  check(c);
  c.rotary.base = static_cast<float>(c.rotary.base);
  c.rotary.factor = static_cast<float>(c.rotary.factor);
  return config;
}

}  // namespace

Net::Net(NetConfig config, const LayerOps& ops, at::Device device)
    : Trainable(ops),
      config_(checked(std::move(config))),
      angles_(config_.model.rotary, config_.model.trained_context, device) {
  const ModelConfig& c = config_.model;
  const auto key_dim = static_cast<double>(c.key_dim);
  score_scale_ = Rotary(c.rotary, c.trained_context).score_factor();
  score_scale_ *= c.softplus ? std::log(key_dim) : 1 / std::sqrt(key_dim);
  if (c.softplus) unit_ = at::full({c.key_dim}, 1 / std::sqrt(key_dim), at::device(device).dtype(at::kFloat));

  add_parameter("token_embd.weight", c.vocabulary, c.width, false);
  if (!config_.tied_output) add_parameter("output.weight", c.vocabulary, c.width, false);
  for (int i = 0; i < c.layers; ++i) add_layer(i);
  add_parameter("output_norm.weight", 0, c.width, false);
  allocate(device);
}

void Net::add_layer(int layer) {
  const ModelConfig& c = config_.model;
  const auto add = [&](const char* name, int64_t rows, int64_t cols) {
    add_parameter(concat("blk.", layer, ".", name, ".weight"), rows, cols, true);
  };
  const int64_t heads = c.heads, kv_heads = c.kv_heads;
  add("attn_norm", 0, c.width);
  add("attn_q", heads * c.key_dim, c.width);
  add("attn_k", kv_heads * c.key_dim, c.width);
  add("attn_v", kv_heads * c.value_dim, c.width);
  add("attn_output", c.width, heads * c.value_dim);
  add("ffn_norm", 0, c.width);
  add("ffn_gate", c.ffn_width, c.width);
  add("ffn_up", c.ffn_width, c.width);
  add("ffn_down", c.width, c.ffn_width);
}

void Net::initialise(uint64_t seed, double deviation) {
  std::mt19937_64 random(seed);
  const at::Tensor host = at::empty(values().sizes(), at::kFloat);
  float* drawn = host.data_ptr<float>();
  for (const NetParameter& p : parameters()) {
    if (p.rows == 0) {
      std::fill_n(drawn + p.offset, p.size(), 1.0f);
      continue;
    }
    const double scale = writes_to_residual(p.name) ? 1 / std::sqrt(2.0 * config_.model.layers) : 1;
    std::normal_distribution<float> normal(0, static_cast<float>(deviation * scale));
    std::generate_n(drawn + p.offset, p.size(), [&] { return normal(random); });
  }
  values().copy_(host);
}

NetWeights weights_of(const Trainable& parameters, int layers, const std::string& output, at::ScalarType type) {
  NetWeights w;
  w.type = type;
  const auto matrix = [&](const std::string& name) { return parameters.parameter(name).to(type); };
  w.embedding = parameters.parameter("token_embd.weight");
  if (!output.empty()) w.output = matrix(output);
  w.output_norm = parameters.parameter("output_norm.weight");
  for (int i = 0; i < layers; ++i) {
    const std::string block = "blk." + std::to_string(i) + ".";
    w.layers.push_back({.attention_norm = parameters.parameter(block + "attn_norm.weight"),
                        .q = matrix(block + "attn_q.weight"),
                        .k = matrix(block + "attn_k.weight"),
                        .v = matrix(block + "attn_v.weight"),
                        .out = matrix(block + "attn_output.weight"),
                        .ffn_norm = parameters.parameter(block + "ffn_norm.weight"),
                        .gate = matrix(block + "ffn_gate.weight"),
                        .up = matrix(block + "ffn_up.weight"),
                        .down = matrix(block + "ffn_down.weight")});
  }
  return w;
}

NetWeights Net::weights(at::ScalarType compute_type) const {
  const char* output = config_.tied_output ? "token_embd.weight" : "output.weight";
  return weights_of(*this, config_.model.layers, output, compute_type);
}

NetWeights Net::frozen_weights(at::ScalarType compute_type) const {
  NetWeights w = weights(compute_type);
  for (at::Tensor* value : {&w.embedding, &w.output_norm, &w.output}) *value = value->detach();
  for (NetWeights::Layer& l : w.layers) {
    for (at::Tensor* value : {&l.attention_norm, &l.q, &l.k, &l.v, &l.out, &l.ffn_norm, &l.gate, &l.up, &l.down}) {
      *value = value->detach();
    }
  }
  return w;
}

at::Tensor Net::embeddings(const NetWeights& weights, const at::Tensor& tokens) {
  return at::embedding(weights.embedding, tokens);
}

Net::AttentionRows Net::attention_rows(const NetWeights& weights, int layer, const at::Tensor& x,
                                       const Angles& angles) const {
  const ModelConfig& c = config_.model;
  const NetWeights::Layer& w = weights.layers[layer];
  const at::Tensor normed = ops().rms_norm(x, w.attention_norm, c.norm_eps, weights.type);
  const auto [q, k, v] = ops().linears(normed, {w.q, w.k, w.v});
  AttentionRows rows{q.unflatten(2, {c.heads, c.key_dim}), k.unflatten(2, {c.kv_heads, c.key_dim}),
                     v.unflatten(2, {c.kv_heads, c.value_dim})};
  if (c.softplus) {
    rows.q = ops().rms_norm(rows.q, unit_, kUnitEps, weights.type);
    rows.k = ops().rms_norm(rows.k, unit_, kUnitEps, weights.type);
  }
  if (angles.cos.defined()) {
    rows.q = ops().rotary(rows.q, angles.cos, angles.sin);
    rows.k = ops().rotary(rows.k, angles.cos, angles.sin);
  }
  return rows;
}

at::Tensor Net::finish_layer(const NetWeights& weights, int layer, const at::Tensor& x,
                             const at::Tensor& attended) const {
  const NetWeights::Layer& w = weights.layers[layer];
  const at::Tensor y = ops().add_linear(x, attended.flatten(2), w.out);
  const at::Tensor normed = ops().rms_norm(y, w.ffn_norm, config_.model.norm_eps, weights.type);
  return ops().add_linear(y, ops().swiglu(normed, w.gate, w.up), w.down);
}

at::Tensor Net::attend(const AttentionRows& rows) const {
  const ModelConfig& c = config_.model;
  return ops().attention({.q = rows.q,
                          .k = rows.k,
                          .v = rows.v,
                          .scale = score_scale_,
                          .window = c.sliding_window,
                          .softplus = c.softplus,
                          .softplus_power = c.softplus_power,
                          .landmarks = c.landmarks});
}

at::Tensor Net::run_layers(const NetWeights& weights, at::Tensor x, int begin, int end) {
  const Angles angles = angles_.range(0, x.size(1));
  for (int layer = begin; layer < end; ++layer) {
    x = finish_layer(weights, layer, x, attend(attention_rows(weights, layer, x, angles)));
  }
  return x;
}

at::Tensor Net::normed_output(const NetWeights& weights, const at::Tensor& x) const {
  return ops().rms_norm(x, weights.output_norm, config_.model.norm_eps, weights.type);
}

at::Tensor Net::logits(const NetWeights& weights, const at::Tensor& tokens) {
  const at::Tensor x = run_layers(weights, embeddings(weights, tokens), 0, config_.model.layers);
  return ops().linear(normed_output(weights, x), weights.output).to(at::kFloat);
}

at::Tensor Net::loss(const NetWeights& weights, const at::Tensor& tokens, const at::Tensor& token_weights) {
  const int64_t length = tokens.size(1) - 1;
  const at::Tensor x =
      run_layers(weights, embeddings(weights, tokens.narrow(1, 0, length)), 0, config_.model.layers);
  return ops().cross_entropy(normed_output(weights, x).flatten(0, 1), weights.output,
                             tokens.narrow(1, 1, length).flatten(), token_weights.flatten());
}

Trainable::Loss Net::step_loss(const LossOptions& options) {
  return [this, used = weights(options.type)](const at::Tensor& tokens, const at::Tensor& token_weights) {
    return loss(used, tokens, token_weights);
  };
}

}  // namespace fathom::train
