// GPT-2: learned positions, LayerNorm with bias, one matrix for q, k and v, GELU.
#include "models/architectures.h"
#include "models/transformer.h"

namespace fathom {

ModelConfig read_gpt2_config(const Gguf& file) {
  ModelConfig config = read_common_config(file, RotaryConfig::Pairing::kInterleaved);
  config.rotary = {};  // positions are learned
  return config;
}

std::unique_ptr<Network> build_gpt2(const ModelConfig& config, WeightSource& weights) {
  auto network =
      build_decoder(config, weights, {.fused_qkv = true, .qkv_bias = true, .gated = false, .biases = true});
  network->position_embedding = weights.matrix("position_embd.weight", config.trained_context, config.width);
  return network;
}

}  // namespace fathom
