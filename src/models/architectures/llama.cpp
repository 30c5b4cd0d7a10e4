// Llama, and models with its file format: Mistral, Yi, SmolLM. RMS norms, interleaved rotary pairs, SwiGLU.
#include "models/architecture.h"

namespace fathom {
namespace {

ModelConfig read_config(const Gguf& file) { return read_common_config(file, RotaryConfig::Pairing::kInterleaved); }

std::unique_ptr<Network> build(const ModelConfig& c, WeightSource& weights) {
  DecoderBuilder b(c, weights);
  for (int i = 0; i < c.layers; ++i) {
    b.add(i, b.rms_norm(i, "attn_norm"), b.attention(i));
    b.add(i, b.rms_norm(i, "ffn_norm"), b.feed_forward(i, Activation::kSwiGlu));
  }
  return b.finish(b.rms_norm("output_norm"));
}

}  // namespace

Architecture llama_architecture() { return {"llama", read_config, build}; }

}  // namespace fathom
