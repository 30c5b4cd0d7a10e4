// Llama, and what uses its file format: Mistral, Yi, SmolLM. RMS norm, interleaved rotary pairs, grouped-query
// attention, SwiGLU.
#include "models/architectures.h"
#include "models/transformer.h"

namespace fathom {

ModelConfig read_llama_config(const Gguf& file) {
  return read_common_config(file, RotaryConfig::Pairing::kInterleaved);
}

std::unique_ptr<Network> build_llama(const ModelConfig& config, WeightSource& weights) {
  return build_decoder(config, weights, {});
}

}  // namespace fathom
