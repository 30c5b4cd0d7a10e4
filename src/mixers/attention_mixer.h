#pragma once

#include <memory>
#include <vector>

#include "mixers/mixer.h"
#include "position/rotary.h"

namespace fathom {

/// Largest supported head width. It bounds buffers on the stack.
inline constexpr int kMaxHeadDim = 1024;

/// Added to the mean square when queries and keys are scaled to unit length.
inline constexpr float kUnitEps = 1e-12f;

/// The weights of attention with grouped key/value heads ("GQA: Training Generalized Multi-Query Transformer
/// Models", 2023).
struct AttentionWeights {
  int layer = 0;  // index in the model
  int heads = 0, kv_heads = 0, key_dim = 0, value_dim = 0;
  int value_offset = -1;  // as in PageShape; if not -1, v and v_bias are empty
  RotaryConfig::Pairing pairing = RotaryConfig::Pairing::kInterleaved;
  size_t rotary = 0;   // index into StateOptions::rotations
  int64_t window = 0;  // newest tokens that a token attends to, itself included; 0: all
  float scale = 0;     // attention scores are multiplied by it
  Matrix q, k, v, out;  // [heads·key_dim | kv_heads·key_dim | kv_heads·value_dim, width], [width, heads·value_dim]
  std::vector<float> q_bias, k_bias, v_bias, out_bias;  // empty: none
  std::vector<float> q_norm, k_norm;  // [key_dim] RMS norm weights of each head, before rotation; empty: no norm
  float norm_eps = 0;
  std::vector<float> unit;  // [key_dim] all 1/√key_dim: scales heads to unit length before rotation; empty: none
  std::unique_ptr<AttentionForm> form;  // null: softmax
};

/// Grouped-query attention over paged keys and values.
class AttentionMixer final : public Mixer {
 public:
  explicit AttentionMixer(AttentionWeights weights) : w_(std::move(weights)) {}
  std::unique_ptr<LayerState> new_state(const StateOptions& options) const override;
  void forward(Workspace& work, std::span<const SequenceRows> sequences, ActivationBuffer& x,
               float* y) const override;
  const Matrix* output_projection() const override { return &w_.out; }
  void describe(AttendLayer& layer) const override;

 private:
  void prepare_heads(Workspace& work, int64_t row, int rotary_dims) const;
  void write_head(Workspace& work, const SequenceRows& rows, int head) const;
  void keep_draft_queries(const SequenceRows& rows, const AttentionInput& input) const;

  AttentionWeights w_;
};

}  // namespace fathom
