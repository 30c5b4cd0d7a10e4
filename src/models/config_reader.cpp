#include "models/config_reader.h"

#include <algorithm>

#include "base/error.h"
#include "kernels/scan.h"
#include "mixers/attention_mixer.h"
#include "models/model_metadata.h"
#include "models/weights.h"

namespace fathom {
namespace {

constexpr int64_t kMaxLayers = 4096, kMaxWidth = 1 << 20, kMaxHeads = 4096, kMaxExperts = 1 << 16;

std::vector<float> rotary_factors(const Gguf& file, const std::string& name, int dims) {
  if (!file.find_tensor(name)) return {};
  GgufWeights weights(file);
  return weights.vector(name, dims / 2);
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

void check_range(const Gguf& file, const std::string& key, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high) fail(file.name(), ": ", key, " is ", value, ", expected ", low, " to ", high);
}

}  // namespace

ConfigReader::ConfigReader(const Gguf& file)
    : file_(file), prefix_(concat(*file.string("general.architecture"), ".")) {}

int64_t ConfigReader::integer(const std::string& name, int64_t low, int64_t high,
                              std::optional<int64_t> fallback) const {
  const std::string full = key(name);
  const int64_t value = fallback && !file_.has(full) ? *fallback : file_.required_integer(full);
  check_range(file_, full, value, low, high);
  return value;
}

std::vector<int64_t> ConfigReader::each_layer(const std::string& name, int64_t low, int64_t high, int layers,
                                              std::optional<int64_t> fallback) const {
  const std::string full = key(name);
  const GgufValue* value = file_.find(full);
  if (!value || value->type != GgufType::kArray)
    return std::vector<int64_t>(layers, integer(name, low, high, fallback));
  const std::vector<int64_t> all = *file_.integers(full);
  if (std::ssize(all) != layers)
    fail(file_.name(), ": ", full, " has ", all.size(), " numbers, expected one for each of ", layers, " layers");
  for (const int64_t v : all) check_range(file_, full, v, low, high);
  return all;
}

double ConfigReader::number(const std::string& name, double fallback) const {
  return file_.number(key(name)).value_or(fallback);
}

void ConfigReader::read_rotary_scaling(RotaryConfig& rotary, int64_t trained_context) const {
  using Scaling = RotaryConfig::Scaling;
  const std::string scaling = key("rope.scaling.");
  rotary.divisors = rotary_factors(file_, "rope_freqs.weight", rotary.dims);
  rotary.long_divisors = rotary_factors(file_, "rope_factors_long.weight", rotary.dims);
  rotary.short_divisors = rotary_factors(file_, "rope_factors_short.weight", rotary.dims);
  rotary.factor = file_.number(scaling + "factor").value_or(file_.number(key("rope.scale_linear")).value_or(1.0));
  if (rotary.factor == 0) rotary.factor = 1;  // some files write 0 for no scaling
  rotary.original_context =
      file_.number(scaling + "original_context_length").value_or(static_cast<double>(trained_context));
  rotary.attention_factor = file_.number(scaling + "attn_factor").value_or(1.0);
  rotary.yarn_ext_factor = file_.number(scaling + "yarn_ext_factor").value_or(1.0);
  rotary.yarn_attn_factor = file_.number(scaling + "yarn_attn_factor").value_or(1.0);
  rotary.yarn_beta_fast = file_.number(scaling + "yarn_beta_fast").value_or(32.0);
  rotary.yarn_beta_slow = file_.number(scaling + "yarn_beta_slow").value_or(1.0);
  const std::string type(file_.string(scaling + "type").value_or("linear"));
  if (!rotary.long_divisors.empty() || !rotary.short_divisors.empty()) {
    if (rotary.long_divisors.empty() || rotary.short_divisors.empty()) {
      fail(file_.name(), ": LongRoPE needs both rope_factors_long.weight and rope_factors_short.weight");
    }
    rotary.scaling = Scaling::kLongRope;
  } else if (type == "linear") {
    rotary.scaling = rotary.factor == 1 ? Scaling::kNone : Scaling::kLinear;
  } else if (type == "yarn") {
    rotary.scaling = Scaling::kYarn;
  } else if (type == "longrope") {
    fail(file_.name(),
         ": LongRoPE scaling without the tensors rope_factors_long.weight and rope_factors_short.weight");
  } else if (type != "none") {
    fail(file_.name(), ": ", scaling, "type is '", type, "', known: none, linear, yarn, longrope");
  }
}

ModelConfig ConfigReader::common(RotaryConfig::Pairing pairing) const {
  ModelConfig c;
  c.architecture = std::string(*file_.string("general.architecture"));
  c.name = std::string(file_.string("general.name").value_or(c.architecture));
  c.layers = static_cast<int>(integer("block_count", 1, kMaxLayers));
  c.width = integer("embedding_length", 1, kMaxWidth);
  c.trained_context = integer("context_length", 1, int64_t{1} << 40);
  c.sliding_window = integer("attention.sliding_window", 0, int64_t{1} << 40, 0);
  read_attention_shape(c);
  read_softplus(file_, c);
  const GgufTensor* embedding = file_.find_tensor("token_embd.weight");
  if (!embedding) fail(file_.name(), ": tensor token_embd.weight is missing");
  c.vocabulary = embedding->dim(1);
  if (const auto* tokens = file_.strings("tokenizer.ggml.tokens");
      tokens && static_cast<int64_t>(tokens->size()) != c.vocabulary) {
    fail(file_.name(), ": the vocabulary has ", tokens->size(), " tokens but token_embd.weight has ", c.vocabulary,
         " rows");
  }
  read_landmarks(c);
  for (const char* name : {"attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"})
    c.norm_eps = static_cast<float>(number(name, c.norm_eps));
  if (!(c.norm_eps > 0 && c.norm_eps < 1))
    fail(file_.name(), ": norm epsilon is ", c.norm_eps, ", expected a number above 0 and below 1");
  c.rotary.pairing = pairing;
  c.rotary.base = number("rope.freq_base", 10000.0);
  if (c.heads > 0) c.rotary.dims = static_cast<int>(integer("rope.dimension_count", 0, c.key_dim, c.key_dim));
  read_rotary_scaling(c.rotary, c.trained_context);
  read_each_layer(c);
  return c;
}

/// Sets head counts and widths to the largest of all layers.
void ConfigReader::read_attention_shape(ModelConfig& c) const {
  const std::vector<int64_t> heads = each_layer("attention.head_count", 0, kMaxHeads, c.layers);
  c.heads = static_cast<int>(std::ranges::max(heads));
  const std::vector<int64_t> kv_heads =
      each_layer("attention.head_count_kv", 0, kMaxHeads, c.layers, std::ranges::max(heads));
  c.kv_heads = static_cast<int>(std::ranges::max(kv_heads));
  c.ffn_width = std::ranges::max(each_layer("feed_forward_length", 0, kMaxWidth, c.layers));
  if (c.heads == 0) return;
  for (int i = 0; i < c.layers; ++i) {
    if (kv_heads[i] > 0 && heads[i] % kv_heads[i] != 0)
      fail(file_.name(), ": ", heads[i], " heads cannot share ", kv_heads[i], " key/value heads evenly");
  }
  const int64_t even_share = c.width / c.heads;
  c.key_dim = static_cast<int>(integer("attention.key_length", 2, kMaxHeadDim, even_share));
  c.value_dim = static_cast<int>(integer("attention.value_length", 1, kMaxHeadDim, even_share));
  if (c.key_dim % 2 != 0)
    fail(file_.name(), ": ", key("attention.key_length"), " is ", c.key_dim, ", expected an even number");
}

/// Sets ModelConfig::each_layer if layers differ. A layer without key/value heads has no attention.
void ConfigReader::read_each_layer(ModelConfig& c) const {
  const std::vector<int64_t> heads = each_layer("attention.head_count", 0, kMaxHeads, c.layers);
  const std::vector<int64_t> kv_heads = each_layer("attention.head_count_kv", 0, kMaxHeads, c.layers, c.heads);
  const std::vector<int64_t> ffn = each_layer("feed_forward_length", 0, kMaxWidth, c.layers);
  std::vector<LayerConfig> all(c.layers, c.layer(0));
  bool differ = false;
  for (int i = 0; i < c.layers; ++i) {
    LayerConfig& layer = all[i];
    differ |= heads[i] != c.heads || kv_heads[i] != c.kv_heads || ffn[i] != c.ffn_width;
    layer.ffn_width = ffn[i];
    layer.heads = kv_heads[i] > 0 ? static_cast<int>(heads[i]) : 0;
    layer.kv_heads = layer.heads > 0 ? static_cast<int>(kv_heads[i]) : 0;
    if (layer.heads == 0) layer.key_dim = layer.value_dim = 0;
  }
  if (differ) c.each_layer = std::move(all);
}

/// Reads Fathom's own metadata keys.
void ConfigReader::read_landmarks(ModelConfig& c) const {
  const std::string block = "attention.landmark_block";
  c.landmarks.tokens = integer(block, 0, kMaxLandmarkTokens, 0);
  if (!c.landmarks) return;
  c.landmark_token = static_cast<int32_t>(integer("attention.landmark_token_id", 0, c.vocabulary - 1));
  if (c.sliding_window > 0) fail(file_.name(), ": ", key(block), " and a sliding window cannot be combined");
  if (c.softplus) fail(file_.name(), ": ", key(block), " and softplus attention cannot be combined");
}

ExpertConfig ConfigReader::experts() const {
  ExpertConfig experts;
  experts.count = static_cast<int>(integer("expert_count", 1, kMaxExperts));
  experts.used = static_cast<int>(integer("expert_used_count", 1, experts.count));
  experts.width = has("expert_feed_forward_length") ? integer("expert_feed_forward_length", 1, kMaxWidth)
                                                    : integer("feed_forward_length", 1, kMaxWidth);
  return experts;
}

StateSpaceConfig ConfigReader::state_space() const {
  StateSpaceConfig s;
  s.conv_width = static_cast<int>(integer("ssm.conv_kernel", 2, kMaxConvWidth));
  s.inner = integer("ssm.inner_size", 1, kMaxWidth);
  s.state = integer("ssm.state_size", 1, 1 << 16);
  s.time_step = integer("ssm.time_step_rank", 1, kMaxWidth);
  s.groups = integer("ssm.group_count", 1, kMaxWidth, 1);
  s.normed = file_.boolean(key("ssm.dt_b_c_rms")).value_or(false);
  return s;
}

StateSpaceConfig ConfigReader::state_space_of_heads() const {
  const StateSpaceConfig s = state_space();
  if (s.inner % s.time_step != 0)
    fail(file_.name(), ": ", s.time_step, " heads (", key("ssm.time_step_rank"), ") cannot share ", s.inner,
         " channels (", key("ssm.inner_size"), ") evenly");
  if (s.time_step % s.groups != 0)
    fail(file_.name(), ": ", s.groups, " groups (", key("ssm.group_count"), ") cannot share ", s.time_step,
         " heads (", key("ssm.time_step_rank"), ") evenly");
  return s;
}

ModelConfig read_common_config(const Gguf& file, RotaryConfig::Pairing pairing) {
  return ConfigReader(file).common(pairing);
}

}  // namespace fathom
