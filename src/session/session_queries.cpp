// Session::attend and Session::fill_random: attention and tokens without a forward pass.
#include <algorithm>
#include <numeric>

#include "attend/methods.h"
#include "base/error.h"
#include "mixers/attention_mixer.h"
#include "session/session.h"

namespace fathom {

void Session::attend(int layer, std::span<const int64_t> positions, const float* queries, float* out) {
  static const std::unique_ptr<Selector> dense = attend_methods().make("dense");
  if (draft_) fail("the session has an open draft: accept it first");
  PagedKv* kv = layer < 0 || layer >= sequence_.layers() ? nullptr : sequence_.paged(layer);
  if (!kv || length() == 0 || positions.empty())
    fail("attend: expected queries, a layer with attention, and a session with tokens");
  kv->reserve_rotations(std::ranges::max(positions) + 1);
  const AttendLayer shape = model().network().attention()[layer];
  std::vector<AttentionInput> inputs(positions.size());  // one for each query, which attends to all tokens
  for (size_t i = 0; i < inputs.size(); ++i) {
    AttentionInput& input = inputs[i];
    input.kv = kv;
    input.sequence = &sequence_;
    input.layer = layer;
    input.heads = shape.heads;
    input.rows = 1;
    input.positions = &positions[i];
    input.query_stride = static_cast<int64_t>(shape.heads) * shape.shape.key_dim;
    input.queries = queries + static_cast<int64_t>(i) * input.query_stride;
    input.scale = kv->score_factor() * model().network().attention_scale(layer);
    input.selector = dense.get();
    input.out = out + static_cast<int64_t>(i) * shape.heads * shape.shape.value_dim;
  }
  runtime().work().attention.run(inputs);
}

void Session::append_slots(const Cartridge& cartridge) {
  if (draft_) fail("the session has an open draft: accept it first");
  append_cartridge(sequence_, runtime(), cartridge);
  logits_.clear();
  hidden_.clear();
}

void Session::fill_random(int64_t n) {
  const ModelConfig& config = model().config();
  std::vector<float> noise(kMaxHeadDim);
  uint32_t state = 12345;
  for (float& v : noise) {
    state = state * 1664525u + 1013904223u;
    v = static_cast<float>(state >> 8) / static_cast<float>(1 << 23) - 1.0f;
  }
  n = config.landmarks.with(length() + n) - sequence_.tokens();
  if (n == 0) return;
  std::vector<int64_t> positions(n);
  std::iota(positions.begin(), positions.end(), sequence_.next_position());
  sequence_.open(positions);
  for (int layer = 0; layer < sequence_.layers(); ++layer) {
    if (PagedKv* kv = sequence_.paged(layer)) {
      kv->reserve_rotations(sequence_.end_position());
      // Stride 0: all tokens have the same key and value, but stored keys differ by their rotations. With a random
      // key per token, the selected pages would be more scattered than for text, and measured times of selectors
      // would be too long.
      runtime().pool().parallel_for(kv->heads(), [&](size_t head, int) {
        kv->write(runtime().work().kernels, static_cast<int>(head), n, noise.data(), 0, noise.data(), 0);
      });
    }
    if (RecurrentState* recurrent = sequence_.recurrent(layer)) recurrent->fill(noise);
  }
  sequence_.commit();
  logits_.clear();
}

}  // namespace fathom
