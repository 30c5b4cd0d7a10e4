#pragma once

#include <memory>
#include <vector>

#include "mixers/short_conv.h"

namespace fathom {

/// The weights of a Mamba layer: a selective state space model ("Mamba: Linear-Time Sequence Modeling with
/// Selective State Spaces", 2023).
struct MambaWeights {
  int layer = 0;                 // index in the model
  int64_t inner = 0;             // channels
  int64_t state = 0;             // state size per channel
  int64_t rank = 0;              // rank of the time-step projection
  Matrix in;                     // [2·inner, width]: x, z
  ShortConv conv;                // over x
  Matrix select;                 // [rank + 2·state, inner]: time steps, b, c
  Matrix time;                   // [inner, rank]
  std::vector<float> time_bias;  // [inner]
  std::vector<float> a;          // [inner, state], ≤ 0
  std::vector<float> d;          // [inner]
  // [rank], [state], [state] weights of RMS norms over the outputs of `select`; empty: no norm
  std::vector<float> time_norm, b_norm, c_norm;
  float norm_eps = 0;
  Matrix out;  // [width, inner]
};

/// Mamba with a convolution and a scan state.
class MambaMixer final : public Mixer {
 public:
  explicit MambaMixer(MambaWeights weights);
  std::unique_ptr<LayerState> new_state(const StateOptions& options) const override;
  void forward(Workspace& work, std::span<const SequenceRows> sequences, ActivationBuffer& x,
               float* y) const override;

 private:
  void make_coefficients(Workspace& work, int64_t rows) const;
  void scan(Workspace& work, const SequenceRows& s, int64_t begin, int64_t end, float* scratch) const;
  void scan_rows(Workspace& work, int64_t first_row, int64_t rows, int64_t begin, int64_t end, float* h,
                 float* scratch) const;

  MambaWeights w_;
  std::shared_ptr<const RecurrentLayout> layout_;
};

}  // namespace fathom
