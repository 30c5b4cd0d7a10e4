#pragma once

#include <memory>
#include <vector>

#include "mixers/mixer.h"
#include "position/rotary.h"

namespace fathom {

/// Largest head width: bounds what is kept on the stack.
inline constexpr int kMaxHeadDim = 1024;

/// Added to the mean square when queries and keys are made unit vectors.
inline constexpr float kUnitEps = 1e-12f;

/// Attention with grouped key/value heads ("GQA: Training Generalized Multi-Query Transformer Models", 2023).
struct AttentionWeights {
  int layer = 0;  // lane of the memory
  int heads = 0, kv_heads = 0, key_dim = 0, value_dim = 0;
  RotaryConfig::Pairing pairing = RotaryConfig::Pairing::kInterleaved;
  int64_t sliding_window = 0;  // newest tokens that a token attends to, itself included; 0 = all
  Landmarks landmarks;
  Matrix q, k, v, out;  // [heads·key_dim | kv_heads·key_dim | kv_heads·value_dim, width], [width, heads·value_dim]
  std::vector<float> q_bias, k_bias, v_bias, out_bias;  // empty = none
  std::vector<float> q_norm, k_norm;  // [key_dim] RMS norm of each head before rotation; empty = none
  float norm_eps = 0;
  ScoreForm form{};  // softplus: queries and keys are made unit vectors before rotation
};

class AttentionMixer final : public Mixer {
 public:
  explicit AttentionMixer(AttentionWeights weights);
  void forward(Workspace& work, std::span<const SequenceRows> sequences, ActivationBuffer& x,
               float* y) const override;
  const Matrix* output_projection() const override { return &w_.out; }

 private:
  void prepare_heads(Workspace& work, int64_t row, int rotary_dims) const;

  AttentionWeights w_;
  std::vector<float> unit_;  // [key_dim] 1/√key_dim, with which an RMS norm gives length 1; empty = none
};

}  // namespace fathom
