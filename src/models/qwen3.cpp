// Qwen3: Llama with half-split rotary pairs and an RMS norm of every query and key head.
#include "models/architectures.h"
#include "models/transformer.h"

namespace fathom {

ModelConfig read_qwen3_config(const Gguf& file) {
  return read_common_config(file, RotaryConfig::Pairing::kHalfSplit);
}

std::unique_ptr<Network> build_qwen3(const ModelConfig& config, WeightSource& weights) {
  return build_decoder(config, weights, {.head_norms = true});
}

}  // namespace fathom
