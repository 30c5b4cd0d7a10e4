// Qwen3: Llama with half-split rotary pairs and an RMS norm of every query and key head.
#include "models/architecture.h"

namespace fathom {
namespace {

ModelConfig read_config(const Gguf& file) { return read_common_config(file, RotaryConfig::Pairing::kHalfSplit); }

std::unique_ptr<Network> build(const ModelConfig& c, WeightSource& weights) {
  DecoderBuilder b(c, weights);
  for (int i = 0; i < c.layers; ++i) {
    b.add(i, b.rms_norm(i, "attn_norm"), b.attention(i, {.head_norms = HeadNorms::kRms}));
    b.add(i, b.rms_norm(i, "ffn_norm"), b.feed_forward(i, Activation::kSwiGlu));
  }
  return b.finish(b.rms_norm("output_norm"));
}

}  // namespace

Architecture qwen3_architecture() { return {"qwen3", read_config, build}; }

}  // namespace fathom
