// The parts that architectures are put together from.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "mixers/attention_mixer.h"
#include "models/model_metadata.h"
#include "models/transformer.h"

namespace fathom {
namespace {

constexpr int64_t kMaxLayers = 4096, kMaxWidth = 1 << 20, kMaxHeads = 4096;

/// A metadata integer that must lie in [low, high].
int64_t integer_in(const Gguf& file, const std::string& key, int64_t low, int64_t high,
                   std::optional<int64_t> otherwise = {}) {
  const int64_t value = otherwise && !file.has(key) ? *otherwise : file.required_integer(key);
  if (value < low || value > high) fail(file.name(), ": ", key, " is ", value, ", expected ", low, " to ", high);
  return value;
}

/// `key` may be one number or one per layer; layers that differ are not supported.
int64_t uniform_integer(const Gguf& file, const std::string& key, int64_t low, int64_t high,
                        std::optional<int64_t> otherwise = {}) {
  const GgufValue* value = file.find(key);
  if (!value || value->type != GgufType::kArray) return integer_in(file, key, low, high, otherwise);
  const std::vector<int64_t> all = *file.integers(key);
  if (all.empty()) fail(file.name(), ": ", key, " is an empty array");
  for (const int64_t v : all) {
    if (v != all[0]) fail(file.name(), ": ", key, " differs from layer to layer, which is not supported");
  }
  if (all[0] < low || all[0] > high) fail(file.name(), ": ", key, " is ", all[0], ", expected ", low, " to ", high);
  return all[0];
}

std::vector<float> rotary_factors(const Gguf& file, const std::string& name, int dims) {
  if (!file.find_tensor(name)) return {};
  GgufWeights weights(file);
  return weights.vector(name, dims / 2);
}

void read_rotary_scaling(const Gguf& file, const std::string& arch, RotaryConfig& rotary, int64_t trained_context) {
  using Scaling = RotaryConfig::Scaling;
  const std::string scaling = arch + ".rope.scaling.";
  rotary.divisors = rotary_factors(file, "rope_freqs.weight", rotary.dims);
  rotary.long_divisors = rotary_factors(file, "rope_factors_long.weight", rotary.dims);
  rotary.short_divisors = rotary_factors(file, "rope_factors_short.weight", rotary.dims);
  rotary.factor = file.number(scaling + "factor").value_or(file.number(arch + ".rope.scale_linear").value_or(1.0));
  if (rotary.factor == 0) rotary.factor = 1;  // files write 0 for "none"
  rotary.original_context =
      file.number(scaling + "original_context_length").value_or(static_cast<double>(trained_context));
  rotary.attention_factor = file.number(scaling + "attn_factor").value_or(1.0);
  rotary.yarn_ext_factor = file.number(scaling + "yarn_ext_factor").value_or(1.0);
  rotary.yarn_attn_factor = file.number(scaling + "yarn_attn_factor").value_or(1.0);
  rotary.yarn_beta_fast = file.number(scaling + "yarn_beta_fast").value_or(32.0);
  rotary.yarn_beta_slow = file.number(scaling + "yarn_beta_slow").value_or(1.0);
  const std::string type(file.string(scaling + "type").value_or("linear"));
  if (!rotary.long_divisors.empty() || !rotary.short_divisors.empty()) {
    if (rotary.long_divisors.empty() || rotary.short_divisors.empty()) {
      fail(file.name(), ": LongRoPE needs both rope_factors_long.weight and rope_factors_short.weight");
    }
    rotary.scaling = Scaling::kLongRope;
  } else if (type == "linear") {
    rotary.scaling = rotary.factor == 1 ? Scaling::kNone : Scaling::kLinear;
  } else if (type == "yarn") {
    rotary.scaling = Scaling::kYarn;
  } else if (type == "longrope") {
    fail(file.name(),
         ": LongRoPE scaling without the tensors rope_factors_long.weight and rope_factors_short.weight");
  } else if (type != "none") {
    fail(file.name(), ": ", scaling, "type is '", type, "', known: none, linear, yarn, longrope");
  }
}

void read_softplus(const Gguf& file, ModelConfig& c) {
  const std::string key = c.architecture + "." + kSoftplusKey, power = c.architecture + "." + kSoftplusPowerKey;
  c.softplus = file.boolean(key).value_or(false);
  c.softplus_power = static_cast<float>(file.number(power).value_or(0.0));
  if (!(c.softplus_power >= 0 && c.softplus_power <= 100))
    fail(file.name(), ": ", power, " is ", c.softplus_power, ", expected 0 to 100");
  if (c.softplus_power > 0 && !c.softplus)
    fail(file.name(), ": ", power, " is ", c.softplus_power, ", but ", key, " is not set");
}

/// Keys of Fathom's own.
void read_landmarks(const Gguf& file, ModelConfig& c) {
  const std::string block = c.architecture + ".attention.landmark_block";
  c.landmarks.tokens = integer_in(file, block, 0, kMostLandmarkTokens, 0);
  if (!c.landmarks) return;
  c.landmark_token =
      static_cast<int32_t>(integer_in(file, c.architecture + ".attention.landmark_token_id", 0, c.vocabulary - 1));
  if (c.sliding_window > 0) fail(file.name(), ": ", block, " and a sliding window do not go together");
  if (c.softplus) fail(file.name(), ": ", block, " and softplus attention do not go together");
}

/// Rows [begin, begin + rows) of a matrix.
Matrix slice(const Matrix& m, int64_t begin, int64_t rows) { return {m.type, m.row(begin), rows, m.cols}; }

/// Makes the parts of a decoder, and records its matrices.
struct Builder {
  const ModelConfig& c;
  WeightSource& weights;
  const DecoderParts& parts;
  Transformer& network;

  Matrix matrix(const std::string& name, int64_t rows, int64_t cols) {
    network.matrices.push_back(weights.matrix(name, rows, cols));
    return network.matrices.back();
  }

  std::vector<float> bias(const std::string& name, int64_t n) {
    return parts.biases ? weights.vector(name, n) : std::vector<float>();
  }

  Norm norm(const std::string& name) {
    return {weights.vector(name + ".weight", c.width), bias(name + ".bias", c.width), c.norm_eps};
  }

  std::vector<float> projection_bias(const std::string& name, int64_t n) {
    return parts.qkv_bias || weights.has(name) ? weights.vector(name, n) : std::vector<float>();
  }

  void projections(const std::string& name, AttentionWeights& w) {
    const int64_t q_rows = static_cast<int64_t>(c.heads) * c.key_dim,
                  k_rows = static_cast<int64_t>(c.kv_heads) * c.key_dim;
    const int64_t v_rows = static_cast<int64_t>(c.kv_heads) * c.value_dim;
    if (!parts.fused_qkv) {
      w.q = matrix(name + "q.weight", q_rows, c.width);
      w.k = matrix(name + "k.weight", k_rows, c.width);
      w.v = matrix(name + "v.weight", v_rows, c.width);
      w.q_bias = projection_bias(name + "q.bias", q_rows);
      w.k_bias = projection_bias(name + "k.bias", k_rows);
      w.v_bias = projection_bias(name + "v.bias", v_rows);
      return;
    }
    const Matrix fused = matrix(name + "qkv.weight", q_rows + k_rows + v_rows, c.width);
    w.q = slice(fused, 0, q_rows);
    w.k = slice(fused, q_rows, k_rows);
    w.v = slice(fused, q_rows + k_rows, v_rows);
    const std::vector<float> all = projection_bias(name + "qkv.bias", fused.rows);
    if (all.empty()) return;
    w.q_bias.assign(all.begin(), all.begin() + q_rows);
    w.k_bias.assign(all.begin() + q_rows, all.begin() + q_rows + k_rows);
    w.v_bias.assign(all.begin() + q_rows + k_rows, all.end());
  }

  std::unique_ptr<Mixer> attention(int layer) {
    const std::string name = "blk." + std::to_string(layer) + ".attn_";
    AttentionWeights w;
    w.layer = layer;
    w.heads = c.heads;
    w.kv_heads = c.kv_heads;
    w.key_dim = c.key_dim;
    w.value_dim = c.value_dim;
    w.pairing = c.rotary.pairing;
    w.sliding_window = c.sliding_window;
    w.landmarks = c.landmarks;
    w.norm_eps = c.norm_eps;
    w.form = {.softplus = c.softplus, .power = c.softplus_power};
    projections(name, w);
    w.out = matrix(name + "output.weight", c.width, static_cast<int64_t>(c.heads) * c.value_dim);
    w.out_bias = bias(name + "output.bias", c.width);
    if (parts.head_norms) {
      w.q_norm = weights.vector(name + "q_norm.weight", c.key_dim);
      w.k_norm = weights.vector(name + "k_norm.weight", c.key_dim);
    }
    return std::make_unique<AttentionMixer>(std::move(w));
  }

  FeedForward ffn(const std::string& name) {
    FeedForward f;
    if (parts.gated) f.gate = matrix(name + "gate.weight", c.ffn_width, c.width);
    f.up = matrix(name + "up.weight", c.ffn_width, c.width);
    f.down = matrix(name + "down.weight", c.width, c.ffn_width);
    f.up_bias = bias(name + "up.bias", c.ffn_width);
    f.down_bias = bias(name + "down.bias", c.width);
    return f;
  }
};

}  // namespace

ModelConfig read_common_config(const Gguf& file, RotaryConfig::Pairing pairing) {
  ModelConfig c;
  c.architecture = std::string(*file.string("general.architecture"));
  c.name = std::string(file.string("general.name").value_or(c.architecture));
  const std::string arch = c.architecture + ".";
  c.layers = static_cast<int>(integer_in(file, arch + "block_count", 1, kMaxLayers));
  c.width = integer_in(file, arch + "embedding_length", 1, kMaxWidth);
  c.heads = static_cast<int>(uniform_integer(file, arch + "attention.head_count", 1, kMaxHeads));
  c.kv_heads = static_cast<int>(uniform_integer(file, arch + "attention.head_count_kv", 1, kMaxHeads, c.heads));
  if (c.heads % c.kv_heads != 0)
    fail(file.name(), ": ", c.heads, " heads cannot share ", c.kv_heads, " key/value heads evenly");
  const int64_t even_share = c.width / c.heads;
  c.key_dim = static_cast<int>(integer_in(file, arch + "attention.key_length", 2, kMaxHeadDim, even_share));
  c.value_dim = static_cast<int>(integer_in(file, arch + "attention.value_length", 1, kMaxHeadDim, even_share));
  if (c.key_dim % 2 != 0)
    fail(file.name(), ": ", arch, "attention.key_length is ", c.key_dim, ", expected an even number");
  c.ffn_width = uniform_integer(file, arch + "feed_forward_length", 1, kMaxWidth);
  c.trained_context = integer_in(file, arch + "context_length", 1, int64_t{1} << 40);
  c.sliding_window = integer_in(file, arch + "attention.sliding_window", 0, int64_t{1} << 40, 0);
  read_softplus(file, c);
  const GgufTensor* embedding = file.find_tensor("token_embd.weight");
  if (!embedding) fail(file.name(), ": tensor token_embd.weight is missing");
  c.vocabulary = embedding->dim(1);
  if (const auto* tokens = file.strings("tokenizer.ggml.tokens");
      tokens && static_cast<int64_t>(tokens->size()) != c.vocabulary) {
    fail(file.name(), ": the vocabulary has ", tokens->size(), " tokens but token_embd.weight has ", c.vocabulary,
         " rows");
  }
  read_landmarks(file, c);
  const char* eps_keys[] = {"attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"};
  for (const char* key : eps_keys) {
    if (const auto eps = file.number(arch + key)) c.norm_eps = static_cast<float>(*eps);
  }
  if (!(c.norm_eps > 0 && c.norm_eps < 1))
    fail(file.name(), ": norm epsilon is ", c.norm_eps, ", expected a small positive number");
  c.rotary.pairing = pairing;
  c.rotary.dims = static_cast<int>(integer_in(file, arch + "rope.dimension_count", 0, c.key_dim, c.key_dim));
  c.rotary.base = file.number(arch + "rope.freq_base").value_or(10000.0);
  read_rotary_scaling(file, c.architecture, c.rotary, c.trained_context);
  return c;
}

std::unique_ptr<Transformer> build_decoder(const ModelConfig& config, WeightSource& weights,
                                           const DecoderParts& parts) {
  auto network = std::make_unique<Transformer>();
  Builder build{config, weights, parts, *network};
  network->width = config.width;
  network->embedding = weights.matrix("token_embd.weight", config.vocabulary, config.width);
  for (int i = 0; i < config.layers; ++i) {
    const std::string layer = "blk." + std::to_string(i) + ".";
    network->layers.push_back({build.norm(layer + "attn_norm"), build.attention(i), build.norm(layer + "ffn_norm"),
                               build.ffn(layer + "ffn_")});
  }
  network->output_norm = build.norm("output_norm");
  network->output = weights.has("output.weight") ? weights.matrix("output.weight", config.vocabulary, config.width)
                                                 : network->embedding;
  network->matrices.push_back(network->output);
  return network;
}

}  // namespace fathom
