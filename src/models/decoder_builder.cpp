#include "models/decoder_builder.h"

#include <cmath>

#include "attend/forms/landmark_form.h"
#include "attend/forms/softplus_form.h"
#include "base/error.h"

namespace fathom {
namespace {

/// Returns rows [begin, begin + rows) of a matrix.
Matrix slice(const Matrix& m, int64_t begin, int64_t rows) { return {m.type, m.row(begin), rows, m.cols}; }

/// Splits the stacked matrices of `count` experts, [count · rows, cols], into one matrix per expert.
std::vector<Matrix> split(const Matrix& all, int count) {
  std::vector<Matrix> parts;
  const int64_t rows = all.rows / count;
  for (int e = 0; e < count; ++e) parts.push_back(slice(all, e * rows, rows));
  return parts;
}

}  // namespace

DecoderBuilder::DecoderBuilder(const ModelConfig& config, WeightSource& weights)
    : c_(config), weights_(weights), decoder_(std::make_unique<Decoder>()) {
  decoder_->width = c_.width;
  decoder_->embedding = weights_.matrix("token_embd.weight", c_.vocabulary, c_.width);
  decoder_->layers.resize(c_.layers);
  decoder_->attention_scales.resize(c_.layers);
}

Matrix DecoderBuilder::projection(const std::string& tensor, int64_t rows, int64_t cols) {
  return decoder_->projections[tensor] = weights_.matrix(tensor, rows, cols);
}

Matrix DecoderBuilder::matrix(const std::string& tensor, int64_t rows, int64_t cols) {
  decoder_->matrices.push_back(projection(tensor, rows, cols));
  return decoder_->matrices.back();
}

std::vector<float> DecoderBuilder::bias(const std::string& tensor, int64_t n, Bias bias) {
  if (bias == Bias::kNone || (bias == Bias::kIfPresent && !weights_.has(tensor))) return {};
  return weights_.vector(tensor, n);
}

Norm DecoderBuilder::rms_norm(const std::string& norm, int64_t n) {
  return {weights_.vector(norm + ".weight", n > 0 ? n : c_.width), {}, c_.norm_eps};
}

Norm DecoderBuilder::layer_norm(const std::string& norm) {
  return {weights_.vector(norm + ".weight", c_.width), weights_.vector(norm + ".bias", c_.width), c_.norm_eps};
}

void DecoderBuilder::projections(int layer, const LayerConfig& shape, const AttentionParts& parts,
                                 AttentionWeights& w) {
  const int64_t q_rows = static_cast<int64_t>(shape.heads) * shape.key_dim,
                k_rows = static_cast<int64_t>(shape.kv_heads) * shape.key_dim;
  const int64_t v_rows = static_cast<int64_t>(shape.kv_heads) * shape.value_dim;
  if (parts.projections == Projections::kSeparate) {
    w.q = matrix(name(layer, "attn_q.weight"), q_rows, c_.width);
    w.k = matrix(name(layer, "attn_k.weight"), k_rows, c_.width);
    w.v = matrix(name(layer, "attn_v.weight"), v_rows, c_.width);
    w.q_bias = bias(name(layer, "attn_q.bias"), q_rows, parts.bias);
    w.k_bias = bias(name(layer, "attn_k.bias"), k_rows, parts.bias);
    w.v_bias = bias(name(layer, "attn_v.bias"), v_rows, parts.bias);
    return;
  }
  const Matrix fused = matrix(name(layer, "attn_qkv.weight"), q_rows + k_rows + v_rows, c_.width);
  w.q = slice(fused, 0, q_rows);
  w.k = slice(fused, q_rows, k_rows);
  w.v = slice(fused, q_rows + k_rows, v_rows);
  const std::vector<float> all = bias(name(layer, "attn_qkv.bias"), fused.rows, parts.bias);
  if (all.empty()) return;
  w.q_bias.assign(all.begin(), all.begin() + q_rows);
  w.k_bias.assign(all.begin() + q_rows, all.begin() + q_rows + k_rows);
  w.v_bias.assign(all.begin() + q_rows + k_rows, all.end());
}

std::unique_ptr<AttentionForm> DecoderBuilder::model_form() const {
  if (c_.landmarks) return std::make_unique<LandmarkForm>(c_.landmarks);
  if (c_.softplus) return std::make_unique<SoftplusForm>(c_.softplus_power, 1.0f);
  return nullptr;
}

std::unique_ptr<Mixer> DecoderBuilder::attention(int layer, AttentionParts parts) {
  const LayerConfig shape = c_.layer(layer);
  if (shape.heads == 0 || shape.kv_heads == 0) {
    fail(c_.architecture, ".attention.", c_.heads == 0 ? "head_count" : "head_count_kv", " is 0 in layer ", layer,
         ", which has attention");
  }
  AttentionWeights w;
  w.layer = layer;
  w.heads = shape.heads;
  w.kv_heads = shape.kv_heads;
  w.key_dim = shape.key_dim;
  w.value_dim = shape.value_dim;
  const std::vector<RotaryConfig> rotaries = c_.rotaries();
  w.pairing = rotaries[shape.rotary == kNoRotary ? 0 : shape.rotary].pairing;
  w.rotary = shape.rotary == kNoRotary ? rotaries.size() : shape.rotary;
  w.window = shape.window;
  w.norm_eps = c_.norm_eps;
  const auto key_dim = static_cast<float>(shape.key_dim);
  w.scale = parts.scale != 0 ? parts.scale : c_.softplus ? std::log(key_dim) : 1 / std::sqrt(key_dim);
  decoder_->attention_scales[layer] = w.scale;
  w.form = parts.form ? std::move(parts.form) : model_form();
  if (c_.softplus) w.unit.assign(shape.key_dim, 1 / std::sqrt(key_dim));
  projections(layer, shape, parts, w);
  w.out = matrix(name(layer, "attn_output.weight"), c_.width, static_cast<int64_t>(shape.heads) * shape.value_dim);
  w.out_bias = bias(name(layer, "attn_output.bias"), c_.width, parts.output_bias);
  if (parts.head_norms == HeadNorms::kRms) {
    w.q_norm = weights_.vector(name(layer, "attn_q_norm.weight"), shape.key_dim);
    w.k_norm = weights_.vector(name(layer, "attn_k_norm.weight"), shape.key_dim);
  }
  return std::make_unique<AttentionMixer>(std::move(w));
}

std::unique_ptr<FeedForward> DecoderBuilder::feed_forward(int layer, Activation activation, Bias with_bias) {
  const int64_t inner = c_.layer(layer).ffn_width;
  DenseWeights w;
  w.activation = activation;
  if (has_gate(activation)) {
    w.gate = projection(name(layer, "ffn_gate.weight"), inner, c_.width);
    w.gate_bias = bias(name(layer, "ffn_gate.bias"), inner, with_bias);
  }
  w.up = projection(name(layer, "ffn_up.weight"), inner, c_.width);
  w.down = projection(name(layer, "ffn_down.weight"), c_.width, inner);
  w.up_bias = bias(name(layer, "ffn_up.bias"), inner, with_bias);
  w.down_bias = bias(name(layer, "ffn_down.bias"), c_.width, with_bias);
  return make_dense_feed_forward(std::move(w));
}

std::unique_ptr<FeedForward> DecoderBuilder::experts(int layer, ExpertParts parts) {
  const ExpertConfig& e = c_.experts;
  ExpertWeights w;
  w.routing = std::move(parts.routing);
  w.routing.used = e.used;
  w.activation = parts.activation;
  w.router = projection(name(layer, "ffn_gate_inp.weight"), e.count, c_.width);
  w.router_bias = bias(name(layer, "ffn_gate_inp.bias"), e.count, parts.bias);
  const auto stack = [&](const std::string& tensor, int64_t rows, int64_t cols) {
    return split(weights_.stack(name(layer, tensor + ".weight"), e.count, rows, cols), e.count);
  };
  const auto biases = [&](const std::string& tensor, int64_t rows) {
    const std::string full = name(layer, tensor + ".bias");
    return parts.bias == Bias::kRequired ? weights_.matrix_floats(full, e.count, rows) : std::vector<float>();
  };
  if (has_gate(parts.activation)) {
    w.gate = stack("ffn_gate_exps", e.width, c_.width);
    w.gate_bias = biases("ffn_gate_exps", e.width);
  }
  w.up = stack("ffn_up_exps", e.width, c_.width);
  w.up_bias = biases("ffn_up_exps", e.width);
  w.down = stack("ffn_down_exps", c_.width, e.width);
  w.down_bias = biases("ffn_down_exps", c_.width);
  return make_expert_feed_forward(std::move(w));
}

std::unique_ptr<Decoder> DecoderBuilder::finish(Norm output_norm) {
  decoder_->output_norm = std::move(output_norm);
  decoder_->output =
      weights_.has("output.weight") ? projection("output.weight", c_.vocabulary, c_.width) : decoder_->embedding;
  decoder_->matrices.push_back(decoder_->output);
  return std::move(decoder_);
}

}  // namespace fathom
