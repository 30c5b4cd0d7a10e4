#pragma once

#include "models/network.h"

namespace fathom {

// One pair a file; the registry in architectures.cpp names them.
ModelConfig read_llama_config(const Gguf& file);
std::unique_ptr<Network> build_llama(const ModelConfig& config, WeightSource& weights);
ModelConfig read_qwen2_config(const Gguf& file);
std::unique_ptr<Network> build_qwen2(const ModelConfig& config, WeightSource& weights);
ModelConfig read_qwen3_config(const Gguf& file);
std::unique_ptr<Network> build_qwen3(const ModelConfig& config, WeightSource& weights);
ModelConfig read_gpt2_config(const Gguf& file);
std::unique_ptr<Network> build_gpt2(const ModelConfig& config, WeightSource& weights);

}  // namespace fathom
