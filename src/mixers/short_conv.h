#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "mixers/mixer.h"

namespace fathom {

/// Calls body(segment, begin, end) for each segment of the opened rows of a recurrence: rows [begin, end).
template <class Body>
void for_each_segment(const RecurrentState& state, const Body& body) {
  int64_t begin = 0;
  for (size_t segment = 0; segment < state.stops().size(); ++segment) {
    body(segment, begin, state.stops()[segment]);
    begin = state.stops()[segment];
  }
}

/// Copies n floats at `offset` of a tensor from before a segment to after it; returns the copy, to be updated in
/// place.
float* carry_state(RecurrentState& state, size_t segment, size_t tensor, int64_t offset, int64_t n);

/// Causal convolution of each channel with a few weights, then SiLU.
struct ShortConv {
  int64_t channels = 0;
  int width = 0;
  std::vector<float> weight;  // [channels, width]
  std::vector<float> bias;    // [channels]; empty: none

  /// Floats of the tensor in which a state keeps the last inputs.
  int64_t state_size() const { return (width - 1) * channels; }
  /// x: [rows, x_stride ≥ channels]; y: [rows, channels]; layer, tensor: of the states in the sequences.
  void forward(Workspace& work, std::span<const SequenceRows> sequences, int layer, size_t tensor, const float* x,
               int64_t x_stride, float* y) const;
};

}  // namespace fathom
