#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "models/config.h"
#include "train/layer_ops.h"

namespace fathom::train {

/// The shape of a net that can be trained.
struct NetConfig {
  ModelConfig model;        // of architecture "llama"
  bool tied_output = true;  // the output matrix is the embedding
};

/// A trained tensor.
struct NetParameter {
  std::string name;  // as in GGUF
  int64_t rows = 0;  // 0: a vector of cols
  int64_t cols = 0;
  int64_t offset = 0;  // index of its first value in Net::values()
  at::Tensor value{};  // f32 [rows, cols] or [cols], a leaf that shares memory with Net::values()

  int64_t size() const { return (rows == 0 ? 1 : rows) * cols; }
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

/// A differentiable llama (RMS norms, rotary pairs, grouped-query attention, SwiGLU) with the same results as the
/// engine's. The residual stream is f32 for every compute type.
class Net {
 public:
  /// Makes a net whose values are zero. Throws Error (usage) if the shape is contradictory or cannot be trained.
  explicit Net(NetConfig config, const LayerOps& ops = plain_ops(), at::Device device = at::kCPU);
  Net(const Net&) = delete;

  /// Draws matrices from N(0, deviation²) and divides those that write to the residual stream by √(2·layers). Sets
  /// norms to 1.
  void initialise(uint64_t seed, double deviation);

  const NetConfig& config() const { return config_; }
  const LayerOps& ops() const { return ops_; }
  const std::vector<NetParameter>& parameters() const { return parameters_; }  // matrices first
  /// Return the values and gradients of all parameters, f32 [count], in the order of parameters().
  const at::Tensor& values() const { return values_; }
  const at::Tensor& gradients() const { return gradients_; }
  /// Returns the number of values that belong to matrices. They precede those of norms.
  int64_t matrix_values() const { return matrix_values_; }

  /// Returns the weights of a step. The backward passes of several losses that use these weights add up in
  /// gradients().
  NetWeights weights(at::ScalarType compute_type) const;
  /// Returns logits, [sequences, length, vocabulary] f32. tokens: [sequences, length] int64.
  at::Tensor logits(const NetWeights& weights, const at::Tensor& tokens);
  /// Returns Σ weight·(−ln p) over all tokens but the first of each row, a scalar. tokens: [sequences, length + 1]
  /// int64; token_weights: [sequences, length] f32.
  at::Tensor loss(const NetWeights& weights, const at::Tensor& tokens, const at::Tensor& token_weights);

 private:
  void add_parameter(const std::string& name, int64_t rows, int64_t cols);
  void add_layer(int layer);
  void share_memory(at::Device device);
  const at::Tensor& parameter(const std::string& name) const;
  void reserve_angles(int64_t length);
  /// Returns x plus the output of the layer's attention.
  at::Tensor attend(const NetWeights::Layer& layer, const at::Tensor& x, at::ScalarType type) const;
  at::Tensor normed_output(const NetWeights& weights, const at::Tensor& tokens);

  NetConfig config_;
  const LayerOps& ops_;
  std::vector<NetParameter> parameters_;
  at::Tensor values_, gradients_;
  int64_t matrix_values_ = 0;
  at::Tensor cos_, sin_;  // [positions, pairs] for the longest batch so far
  at::Tensor unit_;       // [key_dim], all 1/√key_dim; softplus attention: RMS norm weight that gives length 1
  double score_scale_ = 1;
};

}  // namespace fathom::train
