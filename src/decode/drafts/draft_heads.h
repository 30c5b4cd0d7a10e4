#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "decode/drafts/draft_file.h"
#include "mixers/mixer.h"

namespace fathom {

/// Heads on the last hidden state of a model. Head i predicts the token i + 2 positions after that of the state,
/// and reads the tokens between them unless the heads are independent. Sources: Hydra: Sequentially-Dependent Draft
/// Heads for Medusa Decoding, 2024; without the tokens: Medusa, 2024. Not thread-safe.
class DraftHeads {
 public:
  /// file: of kind "heads". Throws Error like DraftFile.
  DraftHeads(DraftFile file, std::shared_ptr<const Model> model);

  int count() const { return static_cast<int>(heads_.size()); }
  /// Returns whether a head reads the tokens before the one that it predicts.
  bool sequential() const { return sequential_; }
  /// Computes the logits of head i after one or several paths: [rows, vocabulary]. hidden: [width], the normalised
  /// output of the last layer for the token before the paths; paths: [rows, i + 1] tokens. Valid until the next
  /// call.
  std::span<const float> logits(Workspace& work, int i, std::span<const float> hidden,
                                std::span<const int32_t> paths);

 private:
  struct Block {
    Matrix weight;            // [width, width], of the first block of a sequential head [width, (i + 2) · width]
    std::vector<float> bias;  // [width]
  };
  struct Head {
    Matrix residual{};  // as the weight of the first block; empty: the hidden state itself
    std::vector<Block> blocks{};
    Matrix output{};  // [vocabulary, width]; empty: that of the model
  };
  void add_block(Workspace& work, const Block& block, ActivationBuffer& input, const Matrix& residual);

  DraftFile file_;
  std::shared_ptr<const Model> model_;
  std::vector<Head> heads_;
  bool sequential_;
  ActivationBuffer inputs_, states_;  // [rows, (i + 2) · width], [rows, width]
  std::vector<float> update_;         // [rows, width]
  std::vector<float> logits_;         // [rows, vocabulary]
};

}  // namespace fathom
