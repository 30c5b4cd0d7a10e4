// Qwen3 with a mixture of experts instead of each feed-forward: softmax over all experts, and the weights of the
// selected ones divided by their sum.
#include "models/architecture.h"

namespace fathom {
namespace {

ModelConfig read_config(const Gguf& file) {
  const ConfigReader reader(file);
  ModelConfig config = reader.common(RotaryConfig::Pairing::kHalfSplit);
  config.experts = reader.experts();
  return config;
}

std::unique_ptr<Network> build(const ModelConfig& c, WeightSource& weights) {
  DecoderBuilder b(c, weights);
  for (int i = 0; i < c.layers; ++i) {
    b.add(i, b.rms_norm(i, "attn_norm"), b.attention(i, {.head_norms = HeadNorms::kRms}));
    b.add(i, b.rms_norm(i, "ffn_norm"),
          b.experts(i, {.routing = {.gate = Routing::Gate::kSoftmax, .normalise = true}}));
  }
  return b.finish(b.rms_norm("output_norm"));
}

}  // namespace

Architecture qwen3moe_architecture() { return {"qwen3moe", read_config, build}; }

}  // namespace fathom
