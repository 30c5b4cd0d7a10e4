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

/// A trained tensor: its GGUF name and where it lies among all values.
struct NetParameter {
  std::string name;
  int64_t rows = 0;  // 0: a vector of cols
  int64_t cols = 0;
  int64_t offset = 0;
  at::Tensor value{};  // f32 [rows, cols] or [cols], a leaf that shares the flat values' memory

  int64_t size() const { return (rows == 0 ? 1 : rows) * cols; }
};

/// The parameters as a forward pass uses them: matrices in the compute type, norms and embedding f32.
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

/// A Llama as the engine reads it (RMS norms, rotary pairs, grouped-query attention, SwiGLU), differentiable. The
/// residual stream is f32 whatever the compute type.
class Net {
 public:
  /// Values are zero, in the device's memory. Throws Error naming what in the shape is contradictory or cannot be
  /// trained.
  explicit Net(NetConfig config, const LayerOps& ops = plain_ops(), at::Device device = at::kCPU);
  Net(const Net&) = delete;

  /// Matrices N(0, deviation²), those that write to the residual stream divided by √(2·layers); norms 1.
  void initialise(uint64_t seed, double deviation);

  const NetConfig& config() const { return config_; }
  const LayerOps& ops() const { return ops_; }
  const std::vector<NetParameter>& parameters() const { return parameters_; }  // matrices first
  /// Of the parameters, f32 [count], one after the other in their order.
  const at::Tensor& values() const { return values_; }
  const at::Tensor& gradients() const { return gradients_; }
  int64_t matrix_values() const { return matrix_values_; }  // that many of them belong to matrices

  /// Made once a step; backward passes through several losses of the same weights add up in gradients().
  NetWeights weights(at::ScalarType compute_type) const;
  /// tokens: [sequences, length] int64; returns [sequences, length, vocabulary] f32.
  at::Tensor logits(const NetWeights& weights, const at::Tensor& tokens);
  /// Σ weight·(−ln p) of the tokens but each row's first, a scalar. tokens: [sequences, length + 1] int64;
  /// token_weights: [sequences, length] f32.
  at::Tensor loss(const NetWeights& weights, const at::Tensor& tokens, const at::Tensor& token_weights);

 private:
  void add_parameter(const std::string& name, int64_t rows, int64_t cols);
  void add_layer(int layer);
  void share_memory(at::Device device);
  const at::Tensor& parameter(const std::string& name) const;
  void reserve_angles(int64_t length);
  /// x and what attention adds to it.
  at::Tensor attend(const NetWeights::Layer& layer, const at::Tensor& x, at::ScalarType type) const;
  at::Tensor normed_output(const NetWeights& weights, const at::Tensor& tokens);

  NetConfig config_;
  const LayerOps& ops_;
  std::vector<NetParameter> parameters_;
  at::Tensor values_, gradients_;
  int64_t matrix_values_ = 0;
  at::Tensor cos_, sin_;  // [positions, pairs], grows with the longest batch
  at::Tensor unit_;       // [key_dim] 1/√key_dim of softplus attention: an RMS norm with it gives length 1
  double score_scale_ = 1;
};

}  // namespace fathom::train
