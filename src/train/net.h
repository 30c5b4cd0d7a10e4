#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "models/config.h"
#include "train/angle_table.h"
#include "train/layer_ops.h"
#include "train/trainable.h"

namespace fathom::train {

/// The shape of a net that can be trained.
struct NetConfig {
  ModelConfig model;        // of architecture "llama"
  bool tied_output = true;  // the output matrix is the embedding
};

/// The parameters of a forward pass: matrices in the compute type, norms and embedding f32.
struct NetWeights {
  struct Layer {
    at::Tensor attention_norm, q, k, v, out;
    at::Tensor ffn_norm, gate, up, down;
  };
  at::ScalarType type = at::kFloat;
  at::Tensor embedding;  // [vocabulary, width] f32
  std::vector<Layer> layers;
  at::Tensor output_norm;
  at::Tensor output;  // [vocabulary, width]
};

/// Returns weights from parameters with the names of a net's. output: name of the output matrix; empty: none.
NetWeights weights_of(const Trainable& parameters, int layers, const std::string& output, at::ScalarType type);

/// A differentiable llama (RMS norms, rotary pairs, grouped-query attention, SwiGLU) with the same results as the
/// engine's. The residual stream is f32 for every compute type.
class Net : public Trainable {
 public:
  /// Makes a net whose values are zero. Throws Error (usage) if the shape is contradictory or cannot be trained.
  explicit Net(NetConfig config, const LayerOps& ops = plain_ops(), at::Device device = at::kCPU);

  /// Draws matrices from N(0, deviation²) and divides those that write to the residual stream by √(2·layers). Sets
  /// norms to 1.
  void initialise(uint64_t seed, double deviation);

  const NetConfig& config() const { return config_; }
  int64_t vocabulary() const override { return config_.model.vocabulary; }

  /// Returns the weights of a step. The backward passes of several losses that use these weights add up in
  /// gradients().
  NetWeights weights(at::ScalarType compute_type) const;
  /// Returns weights that get no gradients.
  NetWeights frozen_weights(at::ScalarType compute_type) const;
  /// Returns logits, [sequences, length, vocabulary] f32. tokens: [sequences, length] int64.
  at::Tensor logits(const NetWeights& weights, const at::Tensor& tokens);
  /// Returns Σ weight·(−ln p) over all tokens but the first of each row, a scalar. tokens: [sequences, length + 1]
  /// int64; token_weights: [sequences, length] f32.
  at::Tensor loss(const NetWeights& weights, const at::Tensor& tokens, const at::Tensor& token_weights);
  Loss step_loss(const LossOptions& options) override;
  void set_metadata(GgufWriter& writer, const Gguf* tokenizer) const override;

  // The parts of a forward pass, for draft sources that use those of their base. x: the residual stream,
  // [sequences, length, width] f32.

  /// Returns the input of the first layer. tokens: [sequences, length] int64.
  static at::Tensor embeddings(const NetWeights& weights, const at::Tensor& tokens);
  /// Returns x after layers [begin, end); row i has position i.
  at::Tensor run_layers(const NetWeights& weights, at::Tensor x, int begin, int end);
  /// Returns the output norm of x, by which the output matrix is multiplied, in the compute type.
  at::Tensor normed_output(const NetWeights& weights, const at::Tensor& x) const;
  /// Queries, keys and values, [sequences, length, heads, dimensions]; queries and keys are rotated.
  struct AttentionRows {
    at::Tensor q, k, v;
  };
  /// Returns the rows of a layer's attention. angles: of each row of a sequence.
  AttentionRows attention_rows(const NetWeights& weights, int layer, const at::Tensor& x,
                               const Angles& angles) const;
  /// Returns the attention of rows to themselves and to earlier ones, [sequences, length, heads, value_dim].
  at::Tensor attend(const AttentionRows& rows) const;
  /// Returns x after the rest of a layer. attended: the attention's result, [sequences, length, heads, value_dim].
  at::Tensor finish_layer(const NetWeights& weights, int layer, const at::Tensor& x,
                          const at::Tensor& attended) const;
  AngleTable& angles() { return angles_; }
  /// Returns the factor of q·k.
  double score_scale() const { return score_scale_; }

 private:
  void add_layer(int layer);

  NetConfig config_;
  at::Tensor unit_;  // [key_dim], all 1/√key_dim; softplus attention: RMS norm weight that gives length 1
  double score_scale_ = 1;
  AngleTable angles_;
};

}  // namespace fathom::train
