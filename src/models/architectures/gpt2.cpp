// GPT-2: learned positions, LayerNorm with bias, one matrix for q, k and v, GELU.
#include "models/architecture.h"

namespace fathom {
namespace {

ModelConfig read_config(const Gguf& file) {
  ModelConfig config = read_common_config(file, RotaryConfig::Pairing::kInterleaved);
  config.rotary = {};  // positions are learned
  return config;
}

std::unique_ptr<Network> build(const ModelConfig& c, WeightSource& weights) {
  DecoderBuilder b(c, weights);
  b.decoder().position_embedding = weights.matrix("position_embd.weight", c.trained_context, c.width);
  for (int i = 0; i < c.layers; ++i) {
    b.add(i, b.layer_norm(i, "attn_norm"),
          b.attention(
              i, {.projections = Projections::kFused, .bias = Bias::kRequired, .output_bias = Bias::kRequired}));
    b.add(i, b.layer_norm(i, "ffn_norm"), b.feed_forward(i, Activation::kGelu, Bias::kRequired));
  }
  return b.finish(b.layer_norm("output_norm"));
}

}  // namespace

Architecture gpt2_architecture() { return {"gpt2", read_config, build}; }

}  // namespace fathom
