#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "formats/gguf.h"
#include "train/layer_ops.h"

namespace fathom::train {

/// A trained tensor.
struct NetParameter {
  std::string name;  // as in GGUF
  int64_t rows = 0;  // 0: a vector of cols
  int64_t cols = 0;
  bool in_layer = false;  // a matrix of a layer; Muon updates only these
  int64_t offset = 0;     // index of its first value in Trainable::values()
  at::Tensor value{};     // f32 [rows, cols] or [cols], a leaf that shares memory with Trainable::values()

  int64_t size() const { return (rows == 0 ? 1 : rows) * cols; }
};

/// How often the most probable token of a draft equals that of its base, by step of the draft.
struct Agreement {
  std::vector<double> equal, all;  // sums of the token weights of the rows that agree, and of all rows

  void add(size_t step, double equal_weight, double all_weight);
  /// Returns equal/all of each step; 0 where no row has weight.
  std::vector<double> shares() const;
};

/// What the loss of a step depends on apart from the batch.
struct LossOptions {
  at::ScalarType type = at::kFloat;  // compute type
  uint64_t seed = 0;                 // of the random choices of a loss, together with `step`
  int64_t step = 0;
  Agreement* agreement = nullptr;  // not null: an evaluation. Losses add the agreement of a draft
};

/// Parameters with a loss: a net or a draft source.
class Trainable {
 public:
  virtual ~Trainable() = default;
  Trainable(const Trainable&) = delete;

  /// Returns the parameters: matrices first, those of layers last among them, then vectors.
  const std::vector<NetParameter>& parameters() const { return parameters_; }
  /// Returns the value of a parameter, which must exist.
  const at::Tensor& parameter(const std::string& name) const;
  /// Return the values and gradients of all parameters, f32 [count], in the order of parameters().
  const at::Tensor& values() const { return values_; }
  const at::Tensor& gradients() const { return gradients_; }
  /// Returns the number of values that belong to matrices. They precede those of vectors.
  int64_t matrix_values() const { return matrix_values_; }
  const LayerOps& ops() const { return ops_; }

  /// Returns the number of token ids.
  virtual int64_t vocabulary() const = 0;
  /// Computes Σ weight·loss of a batch's tokens, a scalar. tokens: [sequences, length + 1] int64; token_weights:
  /// [sequences, length] f32, of predicting tokens[s, i + 1].
  using Loss = std::function<at::Tensor(const at::Tensor& tokens, const at::Tensor& token_weights)>;
  /// Returns the loss of a step, which is called for one part of the batch after another. The backward passes of
  /// all parts add up in gradients().
  virtual Loss step_loss(const LossOptions& options) = 0;
  /// Sets the metadata of the exported file. tokenizer: a file with `tokenizer.*` metadata, or null.
  virtual void set_metadata(GgufWriter& writer, const Gguf* tokenizer) const = 0;

 protected:
  explicit Trainable(const LayerOps& ops) : ops_(ops) {}
  /// Adds a parameter; rows 0: a vector.
  void add_parameter(const std::string& name, int64_t rows, int64_t cols, bool in_layer);
  /// Allocates the values of all added parameters, which are zero.
  void allocate(at::Device device);

 private:
  const LayerOps& ops_;
  std::vector<NetParameter> parameters_;
  at::Tensor values_, gradients_;
  int64_t matrix_values_ = 0;
};

}  // namespace fathom::train
