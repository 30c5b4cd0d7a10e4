#include "mixers/short_conv.h"

#include <algorithm>

namespace fathom {
namespace {

/// Channels of a task and rows of a kernel call. Together they fit in the L1 cache. Tuned with 4,096 channels.
constexpr int64_t kConvChannels = 512, kConvRows = 16;

}  // namespace

float* carry_state(RecurrentState& state, size_t segment, size_t tensor, int64_t offset, int64_t n) {
  const float* before = state.before(segment, tensor);
  float* after = state.after(segment, tensor) + offset;
  if (before) {
    std::copy_n(before + offset, n, after);
  } else {
    std::fill_n(after, n, 0.0f);
  }
  return after;
}

void ShortConv::forward(Workspace& work, std::span<const SequenceRows> sequences, int layer, size_t tensor,
                        const float* x, int64_t x_stride, float* y) const {
  const int64_t blocks = (channels + kConvChannels - 1) / kConvChannels;
  work.pool.parallel_for(sequences.size() * blocks, [&](size_t i, int) {
    const SequenceRows& s = sequences[i / blocks];
    RecurrentState& state = *s.sequence->recurrent(layer);
    ConvTask task;
    task.begin = static_cast<int64_t>(i % blocks) * kConvChannels;
    task.end = std::min(task.begin + kConvChannels, channels);
    task.channels = channels;
    task.width = width;
    task.silu = true;
    task.x_stride = x_stride;
    task.weight = weight.data();
    task.bias = bias.empty() ? nullptr : bias.data();
    task.y_stride = channels;
    for_each_segment(state, [&](size_t segment, int64_t begin, int64_t end) {
      for (int k = 0; k < width - 1; ++k)
        carry_state(state, segment, tensor, k * channels + task.begin, task.end - task.begin);
      task.ring = state.after(segment, tensor);
      for (int64_t r = begin; r < end; r += kConvRows) {
        task.rows = std::min(kConvRows, end - r);
        task.x = x + (s.first_row + r) * x_stride;
        task.y = y + (s.first_row + r) * channels;
        work.kernels.causal_conv(task);
      }
    });
  });
}

}  // namespace fathom
