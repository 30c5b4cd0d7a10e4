#pragma once

#include <memory>
#include <vector>

#include "mixers/short_conv.h"

namespace fathom {

/// The weights of a Mamba-2 layer: a state space model with one decay per head ("Transformers are SSMs", 2024).
struct Mamba2Weights {
  int layer = 0;      // index in the model
  int64_t inner = 0;  // heads · head width
  int64_t heads = 0;
  int64_t groups = 0;            // the heads of a group share b and c
  int64_t state = 0;             // state size per channel
  Matrix in;                     // [2·inner + 2·groups·state + heads, width]: z, x, b, c, time steps
  ShortConv conv;                // over x, b and c
  std::vector<float> time_bias;  // [heads]
  std::vector<float> a;          // [heads], ≤ 0
  std::vector<float> d;          // [heads]
  std::vector<float> norm;       // [inner] RMS norm weights of y·silu(z), per group; empty: no norm
  float norm_eps = 0;
  Matrix out;  // [width, inner]
};

/// Mamba-2 with a convolution and a scan state.
class Mamba2Mixer final : public Mixer {
 public:
  explicit Mamba2Mixer(Mamba2Weights weights);
  std::unique_ptr<LayerState> new_state(const StateOptions& options) const override;
  void forward(Workspace& work, std::span<const SequenceRows> sequences, ActivationBuffer& x,
               float* y) const override;

 private:
  int64_t head_width() const { return w_.inner / w_.heads; }
  void make_time_steps(Workspace& work, int64_t rows) const;
  void plan_blocks(Workspace& work, std::span<const SequenceRows> sequences) const;
  void multiply_rows(Workspace& work, int64_t rows) const;
  void scan(Workspace& work, RecurrentState& state, std::span<const RecurrenceBuffers::Block> blocks, int64_t head,
            float* scratch) const;
  void gate(Workspace& work, int64_t row) const;

  Mamba2Weights w_;
  std::shared_ptr<const RecurrentLayout> layout_;
};

}  // namespace fathom
