// Mamba: one selective state space per layer, RMS norms. Also Falcon-Mamba, which adds RMS norms of time steps, B
// and C.
#include "models/architecture.h"

namespace fathom {
namespace {

ModelConfig read_config(const Gguf& file) {
  const ConfigReader reader(file);
  ModelConfig config = reader.common(RotaryConfig::Pairing::kInterleaved);
  config.state_space = reader.state_space();
  return config;
}

std::unique_ptr<Network> build(const ModelConfig& c, WeightSource& weights) {
  DecoderBuilder b(c, weights);
  for (int i = 0; i < c.layers; ++i) b.add(i, b.rms_norm(i, "attn_norm"), b.mamba(i));
  return b.finish(b.rms_norm("output_norm"));
}

}  // namespace

Architecture mamba_architecture() { return {"mamba", read_config, build}; }

}  // namespace fathom
