#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "mixers/mixer.h"

namespace fathom {

/// Calls body(segment, begin, end) for each segment of the opened rows of a recurrent state; the segment has rows
/// [begin, end).
template <class Body>
void for_each_segment(const RecurrentState& state, const Body& body) {
  int64_t begin = 0;
  for (size_t segment = 0; segment < state.stops().size(); ++segment) {
    body(segment, begin, state.stops()[segment]);
    begin = state.stops()[segment];
  }
}

/// Copies n floats at `offset` of a tensor from the state before a segment to the state after it. Returns the copy,
/// which the caller updates in place.
float* carry_state(RecurrentState& state, size_t segment, size_t tensor, int64_t offset, int64_t n);

/// A causal convolution over the last `width` tokens of each channel, followed by SiLU.
struct ShortConv {
  int64_t channels = 0;
  int width = 0;
  std::vector<float> weight;  // [channels, width]
  std::vector<float> bias;    // [channels]; empty: none

  /// Number of floats of the state tensor that holds the last inputs.
  int64_t state_size() const { return (width - 1) * channels; }
  /// Computes y: [rows, channels] from x: rows of stride x_stride ≥ channels. layer, tensor: locate the state
  /// tensor in each sequence.
  void forward(Workspace& work, std::span<const SequenceRows> sequences, int layer, size_t tensor, const float* x,
               int64_t x_stride, float* y) const;
};

}  // namespace fathom
