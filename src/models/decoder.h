#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "models/feed_forward.h"
#include "models/network.h"
#include "models/norm.h"

namespace fathom {

/// One step of a layer: x += post(Σ branches(pre(x))). A branch is a mixer or a feed-forward; all branches read the
/// same rows.
struct ResidualBlock {
  Norm pre;  // empty: branches read x
  std::vector<std::unique_ptr<Mixer>> mixers;
  std::vector<std::unique_ptr<FeedForward>> feed_forwards;
  Norm post;  // empty: no norm
};

/// The residual blocks of a layer, in the order of execution.
struct DecoderLayer {
  std::vector<ResidualBlock> blocks;
};

/// The decoder shared by most architectures: embedding, layers of residual blocks, a norm and an output
/// projection.
class Decoder final : public Network {
 public:
  std::vector<std::unique_ptr<LayerState>> new_states(const StateOptions& options, int count) const override;
  void forward(Workspace& work, std::span<const SequenceRows> sequences, std::span<const int32_t> tokens,
               int layers_run, const LayerHooks& hooks) const override;
  void logits(Workspace& work, ActivationBuffer& x, float* logits) const override;
  std::vector<AttendLayer> attention() const override;
  float attention_scale(int layer) const override { return attention_scales[layer]; }
  const Matrix* output_projection(int layer) const override;
  const Matrix* projection(std::string_view name) const override;
  double weight_bytes(int64_t rows) const override;
  int64_t multiply_adds() const override;
  void embeddings(Workspace& work, std::span<const int32_t> tokens, float* out) const override;

  int64_t width = 0;
  Matrix embedding;           // [vocabulary, width]
  float embedding_scale = 1;  // multiplies embeddings
  Matrix position_embedding;  // [trained context, width]; empty: none
  std::vector<DecoderLayer> layers;
  std::vector<float> attention_scales;  // [layers]; 0: no attention
  Norm output_norm;
  Matrix output;  // [vocabulary, width]; equal to `embedding` if tied
  /// The matrices of mixers and of the output, with which each decoded token is multiplied; for weight_bytes() and
  /// multiply_adds().
  std::vector<Matrix> matrices;
  std::map<std::string, Matrix, std::less<>> projections;  // by name; those that project() multiplies with

 private:
  void embed(Workspace& work, const SequenceRows& rows, std::span<const int32_t> tokens) const;
  void run_block(Workspace& work, const ResidualBlock& block, std::span<const SequenceRows> sequences,
                 int64_t rows) const;
};

}  // namespace fathom
