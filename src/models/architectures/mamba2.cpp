// Mamba-2: one state space per layer, with one decay per head; RMS norms.
#include "models/architecture.h"

namespace fathom {
namespace {

ModelConfig read_config(const Gguf& file) {
  const ConfigReader reader(file);
  ModelConfig config = reader.common(RotaryConfig::Pairing::kInterleaved);
  config.state_space = reader.state_space_of_heads();
  return config;
}

std::unique_ptr<Network> build(const ModelConfig& c, WeightSource& weights) {
  DecoderBuilder b(c, weights);
  for (int i = 0; i < c.layers; ++i) b.add(i, b.rms_norm(i, "attn_norm"), b.mamba2(i));
  return b.finish(b.rms_norm("output_norm"));
}

}  // namespace

Architecture mamba2_architecture() { return {"mamba2", read_config, build}; }

}  // namespace fathom
