// Gemma 3: groups of five sliding-window layers and one full-attention layer. The two kinds have different rotary
// bases, and only full attention has rotary scaling. RMS norms before and after attention and feed-forward, RMS
// norms of query and key heads, GeGLU, scaled embeddings.
#include <cmath>

#include "base/error.h"
#include "models/architecture.h"

namespace fathom {
namespace {

constexpr int64_t kWindowPattern = 6;  // default: every sixth layer has no window
constexpr int kLayersOf27B = 62;       // scales attention scores by 1/√(width / heads) instead of 1/√key_dim

ModelConfig read_config(const Gguf& file) {
  const ConfigReader reader(file);
  ModelConfig config = reader.common(RotaryConfig::Pairing::kHalfSplit);
  RotaryConfig local;
  local.pairing = config.rotary.pairing;
  local.dims = config.rotary.dims;
  local.base = reader.number("rope.freq_base_swa", 10000);
  config.further_rotaries = {local};
  config.each_layer.assign(config.layers, config.layer(0));
  const int64_t pattern =
      reader.integer("attention.sliding_window_pattern", 1, config.layers + kWindowPattern, kWindowPattern);
  for (int i = 0; i < config.layers; ++i) {
    LayerConfig& layer = config.each_layer[i];
    if (i % pattern == pattern - 1) {
      layer.window = 0;
    } else {
      layer.rotary = 1;
    }
  }
  return config;
}

std::unique_ptr<Network> build(const ModelConfig& c, WeightSource& weights) {
  DecoderBuilder b(c, weights);
  b.decoder().embedding_scale = std::sqrt(static_cast<float>(c.width));
  const int64_t scale_dim = c.layers == kLayersOf27B ? c.width / c.heads : c.key_dim;
  for (int i = 0; i < c.layers; ++i) {
    b.add(i, b.rms_norm(i, "attn_norm"),
          b.attention(i, {.head_norms = HeadNorms::kRms, .scale = 1 / std::sqrt(static_cast<float>(scale_dim))}),
          b.rms_norm(i, "post_attention_norm"));
    b.add(i, b.rms_norm(i, "ffn_norm"), b.feed_forward(i, Activation::kGeGlu), b.rms_norm(i, "post_ffw_norm"));
  }
  return b.finish(b.rms_norm("output_norm"));
}

}  // namespace

Architecture gemma3_architecture() { return {"gemma3", read_config, build}; }

}  // namespace fathom
