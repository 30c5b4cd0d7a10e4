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

}  // namespace

Net::Net(NetConfig config, const LayerOps& ops, at::Device device) : config_(std::move(config)), ops_(ops) {
  ModelConfig& c = config_.model;
  check(c);
  c.rotary.base = static_cast<float>(c.rotary.base);  // rounded as in GGUF files
  c.rotary.factor = static_cast<float>(c.rotary.factor);
  const auto key_dim = static_cast<double>(c.key_dim);
  score_scale_ = Rotary(c.rotary, c.trained_context).score_factor();
  score_scale_ *= c.softplus ? std::log(key_dim) : 1 / std::sqrt(key_dim);
  if (c.softplus) unit_ = at::full({c.key_dim}, 1 / std::sqrt(key_dim), at::device(device).dtype(at::kFloat));

  add_parameter("token_embd.weight", c.vocabulary, c.width);
  if (!config_.tied_output) add_parameter("output.weight", c.vocabulary, c.width);
  for (int i = 0; i < c.layers; ++i) add_layer(i);
  add_parameter("output_norm.weight", 0, c.width);
  share_memory(device);
}

void Net::add_parameter(const std::string& name, int64_t rows, int64_t cols) {
  parameters_.push_back({name, rows, cols});
}

void Net::add_layer(int layer) {
  const ModelConfig& c = config_.model;
  const std::string block = "blk." + std::to_string(layer) + ".";
  const int64_t heads = c.heads, kv_heads = c.kv_heads;
  add_parameter(block + "attn_norm.weight", 0, c.width);
  add_parameter(block + "attn_q.weight", heads * c.key_dim, c.width);
  add_parameter(block + "attn_k.weight", kv_heads * c.key_dim, c.width);
  add_parameter(block + "attn_v.weight", kv_heads * c.value_dim, c.width);
  add_parameter(block + "attn_output.weight", c.width, heads * c.value_dim);
  add_parameter(block + "ffn_norm.weight", 0, c.width);
  add_parameter(block + "ffn_gate.weight", c.ffn_width, c.width);
  add_parameter(block + "ffn_up.weight", c.ffn_width, c.width);
  add_parameter(block + "ffn_down.weight", c.width, c.ffn_width);
}

void Net::share_memory(at::Device device) {
  std::stable_partition(parameters_.begin(), parameters_.end(), [](const NetParameter& p) { return p.rows > 0; });
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

void Net::initialise(uint64_t seed, double deviation) {
  std::mt19937_64 random(seed);
  const at::Tensor host = at::empty(values_.sizes(), at::kFloat);
  float* values = host.data_ptr<float>();
  for (const NetParameter& p : parameters_) {
    if (p.rows == 0) {
      std::fill_n(values + p.offset, p.size(), 1.0f);
      continue;
    }
    const double scale = writes_to_residual(p.name) ? 1 / std::sqrt(2.0 * config_.model.layers) : 1;
    std::normal_distribution<float> normal(0, static_cast<float>(deviation * scale));
    std::generate_n(values + p.offset, p.size(), [&] { return normal(random); });
  }
  values_.copy_(host);
}

const at::Tensor& Net::parameter(const std::string& name) const {
  const auto found =
      std::find_if(parameters_.begin(), parameters_.end(), [&](const NetParameter& p) { return p.name == name; });
  return found->value;
}

NetWeights Net::weights(at::ScalarType compute_type) const {
  NetWeights w;
  w.type = compute_type;
  const auto matrix = [&](const std::string& name) { return parameter(name).to(compute_type); };
  w.embedding = parameter("token_embd.weight");
  w.output = matrix(config_.tied_output ? "token_embd.weight" : "output.weight");
  w.output_norm = parameter("output_norm.weight");
  for (int i = 0; i < config_.model.layers; ++i) {
    const std::string block = "blk." + std::to_string(i) + ".";
    w.layers.push_back({.attention_norm = parameter(block + "attn_norm.weight"),
                        .q = matrix(block + "attn_q.weight"),
                        .k = matrix(block + "attn_k.weight"),
                        .v = matrix(block + "attn_v.weight"),
                        .out = matrix(block + "attn_output.weight"),
                        .ffn_norm = parameter(block + "ffn_norm.weight"),
                        .gate = matrix(block + "ffn_gate.weight"),
                        .up = matrix(block + "ffn_up.weight"),
                        .down = matrix(block + "ffn_down.weight")});
  }
  return w;
}

void Net::reserve_angles(int64_t length) {
  const RotaryConfig& rotary = config_.model.rotary;
  if (rotary.dims == 0 || (cos_.defined() && cos_.size(0) >= length)) return;
  const Rotary angles(rotary, config_.model.trained_context);
  const at::Tensor cos = at::empty({length, angles.pairs()}, at::kFloat), sin = at::empty_like(cos);
  for (int64_t m = 0; m < length; ++m) {
    angles.angles(static_cast<double>(m), cos.data_ptr<float>() + m * angles.pairs(),
                  sin.data_ptr<float>() + m * angles.pairs());
  }
  cos_ = cos.to(values_.device());
  sin_ = sin.to(values_.device());
}

at::Tensor Net::attend(const NetWeights::Layer& layer, const at::Tensor& x, at::ScalarType type) const {
  const ModelConfig& c = config_.model;
  const int64_t length = x.size(1);
  const at::Tensor normed = ops_.rms_norm(x, layer.attention_norm, c.norm_eps, type);
  const auto [q, k, v] = ops_.linears(normed, {layer.q, layer.k, layer.v});
  AttentionCall call{.q = q.unflatten(2, {c.heads, c.key_dim}),
                     .k = k.unflatten(2, {c.kv_heads, c.key_dim}),
                     .v = v.unflatten(2, {c.kv_heads, c.value_dim}),
                     .scale = score_scale_,
                     .window = c.sliding_window,
                     .softplus = c.softplus,
                     .softplus_power = c.softplus_power,
                     .landmarks = c.landmarks};
  if (c.softplus) {
    call.q = ops_.rms_norm(call.q, unit_, kUnitEps, type);
    call.k = ops_.rms_norm(call.k, unit_, kUnitEps, type);
  }
  if (c.rotary.dims > 0) {
    const at::Tensor cos = cos_.narrow(0, 0, length), sin = sin_.narrow(0, 0, length);
    call.q = ops_.rotary(call.q, cos, sin);
    call.k = ops_.rotary(call.k, cos, sin);
  }
  return ops_.add_linear(x, ops_.attention(call).flatten(2), layer.out);
}

at::Tensor Net::normed_output(const NetWeights& weights, const at::Tensor& tokens) {
  reserve_angles(tokens.size(1));
  const double eps = config_.model.norm_eps;
  at::Tensor x = at::embedding(weights.embedding, tokens);  // [sequences, length, width] f32
  for (const NetWeights::Layer& layer : weights.layers) {
    x = attend(layer, x, weights.type);
    const at::Tensor normed = ops_.rms_norm(x, layer.ffn_norm, eps, weights.type);
    x = ops_.add_linear(x, ops_.swiglu(normed, layer.gate, layer.up), layer.down);
  }
  return ops_.rms_norm(x, weights.output_norm, eps, weights.type);
}

at::Tensor Net::logits(const NetWeights& weights, const at::Tensor& tokens) {
  return ops_.linear(normed_output(weights, tokens), weights.output).to(at::kFloat);
}

at::Tensor Net::loss(const NetWeights& weights, const at::Tensor& tokens, const at::Tensor& token_weights) {
  const int64_t length = tokens.size(1) - 1;
  const at::Tensor x = normed_output(weights, tokens.narrow(1, 0, length));
  return ops_.cross_entropy(x.flatten(0, 1), weights.output, tokens.narrow(1, 1, length).flatten(),
                            token_weights.flatten());
}

}  // namespace fathom::train
