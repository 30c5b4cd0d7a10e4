#pragma once

#include <memory>
#include <string>

#include "formats/gguf.h"
#include "kernels/adapter_matmul.h"
#include "models/model.h"

namespace fathom {

/// A LoRA adapter of a model ("LoRA: Low-Rank Adaptation of Large Language Models", 2021). Immutable and shared by
/// sessions, each of which sets its own scale ("CoT-Valve: Length-Compressible Chain-of-Thought Tuning", 2025).
class Adapter {
 public:
  /// Reads a GGUF file as llama.cpp's convert_lora_to_gguf.py writes it: general.type = "adapter", adapter.type =
  /// "lora", the architecture of the model, adapter.lora.alpha (absent or 0: the updates are not multiplied by α /
  /// rank), and for each changed weight NAME the tensors NAME.lora_a, [in, rank], and NAME.lora_b, [rank, out], in
  /// GGUF order. Factors of any type are converted to float. Throws Error naming the file, the field or tensor, and
  /// what was expected: also for weights that adapters cannot change (Network::projection).
  static std::shared_ptr<const Adapter> open(const std::string& path, std::shared_ptr<const Model> model);
  /// Reads an open file, which need not outlive the adapter. Throws Error like open().
  static std::shared_ptr<const Adapter> from(const Gguf& file, std::shared_ptr<const Model> model);

  const Model& model() const { return *model_; }
  const AdapterWeights& weights() const { return weights_; }

 private:
  Adapter(std::shared_ptr<const Model> model, AdapterWeights weights)
      : model_(std::move(model)), weights_(std::move(weights)) {}
  std::shared_ptr<const Model> model_;
  AdapterWeights weights_;
};

/// An adapter and the factor that multiplies its updates: 0 is the model without it, 1 the trained strength; values
/// between interpolate, other values extrapolate.
struct AdapterScale {
  std::shared_ptr<const Adapter> adapter;
  float scale = 1;
};

}  // namespace fathom
