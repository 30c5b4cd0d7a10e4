// Qwen2: Llama with biases on q, k and v, and half-split rotary pairs.
#include "models/architectures.h"
#include "models/transformer.h"

namespace fathom {

ModelConfig read_qwen2_config(const Gguf& file) {
  return read_common_config(file, RotaryConfig::Pairing::kHalfSplit);
}

std::unique_ptr<Network> build_qwen2(const ModelConfig& config, WeightSource& weights) {
  return build_decoder(config, weights, {.qkv_bias = true});
}

}  // namespace fathom
