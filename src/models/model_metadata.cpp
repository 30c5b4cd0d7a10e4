#include "models/model_metadata.h"

namespace fathom {

void set_shape_metadata(GgufWriter& writer, const ModelConfig& c) {
  const std::string arch = c.architecture + ".";
  const auto set = [&](const char* key, int64_t value) { writer.set(arch + key, GgufType::kU32, value); };
  writer.set_string("general.architecture", c.architecture);
  writer.set_string("general.name", c.name.empty() ? c.architecture : c.name);
  set("block_count", c.layers);
  set("context_length", c.trained_context);
  set("embedding_length", c.width);
  set("feed_forward_length", c.ffn_width);
  set("attention.head_count", c.heads);
  set("attention.head_count_kv", c.kv_heads);
  set("attention.key_length", c.key_dim);
  set("attention.value_length", c.value_dim);
  set("vocab_size", c.vocabulary);
  if (c.sliding_window > 0) set("attention.sliding_window", c.sliding_window);
  if (c.softplus) {
    writer.set(arch + kSoftplusKey, GgufType::kBool, true);
    writer.set(arch + kSoftplusPowerKey, GgufType::kF32, double{c.softplus_power});
  }
  if (c.landmarks) {
    set("attention.landmark_block", c.landmarks.tokens);
    set("attention.landmark_token_id", c.landmark_token);
  }
  writer.set(arch + "attention.layer_norm_rms_epsilon", GgufType::kF32, double{c.norm_eps});
}

}  // namespace fathom
