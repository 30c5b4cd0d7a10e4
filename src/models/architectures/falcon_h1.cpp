// Falcon-H1: attention and Mamba-2 in parallel on the same normalised rows, then SwiGLU; RMS norms, half-split
// rotary pairs. Files contain its multipliers folded into the weights.
#include "models/architecture.h"

namespace fathom {
namespace {

ModelConfig read_config(const Gguf& file) {
  const ConfigReader reader(file);
  ModelConfig config = reader.common(RotaryConfig::Pairing::kHalfSplit);
  config.state_space = reader.state_space_of_heads();
  return config;
}

/// Reads the norm before the feed-forward, whose name may or may not end with ".weight".
Norm ffn_norm(DecoderBuilder& b, int layer) {
  const std::string name = b.name(layer, "ffn_norm");
  if (b.weights().has(name)) return {b.vector(name, b.config().width), {}, b.config().norm_eps};
  return b.rms_norm(name);
}

std::unique_ptr<Network> build(const ModelConfig& c, WeightSource& weights) {
  DecoderBuilder b(c, weights);
  for (int i = 0; i < c.layers; ++i) {
    b.add(i, b.rms_norm(i, "attn_norm"), b.attention(i), b.mamba2(i));
    b.add(i, ffn_norm(b, i), b.feed_forward(i, Activation::kSwiGlu, Bias::kIfPresent));
  }
  return b.finish(b.rms_norm("output_norm"));
}

}  // namespace

Architecture falcon_h1_architecture() { return {"falcon-h1", read_config, build}; }

}  // namespace fathom
