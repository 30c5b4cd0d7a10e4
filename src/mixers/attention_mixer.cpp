#include "mixers/attention_mixer.h"

#include <algorithm>
#include <cmath>

namespace fathom {
namespace {

/// Brings pairs (i, i + dims/2) of a head side by side. x: [dims].
void pair_up(float* x, int dims, float* spare) {
  std::copy_n(x, dims, spare);
  for (int i = 0; i < dims / 2; ++i) {
    x[2 * i] = spare[i];
    x[2 * i + 1] = spare[dims / 2 + i];
  }
}

}  // namespace

AttentionMixer::AttentionMixer(AttentionWeights weights) : w_(std::move(weights)) {
  if (w_.form.softplus) unit_.assign(w_.key_dim, 1 / std::sqrt(static_cast<float>(w_.key_dim)));
}

/// Norms the heads of one row and brings rotary pairs side by side.
void AttentionMixer::prepare_heads(Workspace& work, int64_t row, int rotary_dims) const {
  const bool pairs = w_.pairing == RotaryConfig::Pairing::kHalfSplit && rotary_dims > 0;
  float spare[kMaxHeadDim];
  const auto prepare = [&](float* heads, int count, const std::vector<float>& norm) {
    for (int h = 0; h < count; ++h) {
      float* head = heads + static_cast<int64_t>(h) * w_.key_dim;
      if (!norm.empty()) work.kernels.rms_norm(head, norm.data(), w_.norm_eps, w_.key_dim, head);
      if (!unit_.empty()) work.kernels.rms_norm(head, unit_.data(), kUnitEps, w_.key_dim, head);
      if (pairs) pair_up(head, rotary_dims, spare);
    }
  };
  prepare(work.q.data() + row * w_.heads * w_.key_dim, w_.heads, w_.q_norm);
  prepare(work.k.data() + row * w_.kv_heads * w_.key_dim, w_.kv_heads, w_.k_norm);
}

void AttentionMixer::forward(Workspace& work, std::span<const SequenceRows> sequences, ActivationBuffer& x,
                             float* y) const {
  const int64_t rows = x.rows();
  const int64_t q_stride = static_cast<int64_t>(w_.heads) * w_.key_dim;
  const int64_t k_stride = static_cast<int64_t>(w_.kv_heads) * w_.key_dim,
                v_stride = static_cast<int64_t>(w_.kv_heads) * w_.value_dim;
  work.q.reserve(rows * q_stride);
  work.k.reserve(rows * k_stride);
  work.v.reserve(rows * v_stride);
  work.attended.resize(rows, static_cast<int64_t>(w_.heads) * w_.value_dim);

  const Product projections[] = {
      {&w_.q, work.q.data(), w_.q_bias}, {&w_.k, work.k.data(), w_.k_bias}, {&w_.v, work.v.data(), w_.v_bias}};
  matmul(work.pool, work.kernels, x, projections);

  work.pool.parallel_for(rows, [&](size_t r, int) {
    prepare_heads(work, static_cast<int64_t>(r), 2 * sequences[0].rotations->pairs());  // the model's, in all alike
  });
  work.pool.parallel_for(sequences.size() * w_.kv_heads, [&](size_t i, int) {
    const SequenceRows& s = sequences[i / w_.kv_heads];
    const int head = static_cast<int>(i % w_.kv_heads);
    s.memory->write(work.kernels, w_.layer, head, s.rows,
                    work.k.data() + s.first_row * k_stride + head * w_.key_dim, k_stride,
                    work.v.data() + s.first_row * v_stride + head * w_.value_dim, v_stride, *s.rotations);
  });
  work.attention_inputs.clear();
  for (const SequenceRows& s : sequences) {
    AttentionInput& input = work.attention_inputs.emplace_back();
    input.memory = s.memory;
    input.layer = w_.layer;
    input.heads = w_.heads;
    input.rows = s.rows;
    input.positions = s.positions;
    input.queries = work.q.data() + s.first_row * q_stride;
    input.query_stride = q_stride;
    const auto key_dim = static_cast<float>(w_.key_dim);
    input.form = s.selector->score_form(w_.layer, w_.form);
    input.scale = s.score_factor * (w_.form.softplus ? std::log(key_dim) : 1 / std::sqrt(key_dim));
    input.window = w_.sliding_window;
    input.rotations = s.rotations;
    input.landmarks = w_.landmarks;
    input.selector = s.selector;
    input.listener = s.listener;
    input.watcher = s.watcher;
    input.out = work.attended.row(s.first_row);
  }
  work.attention.run(work.attention_inputs);

  const Product output[] = {{&w_.out, y, w_.out_bias}};
  matmul(work.pool, work.kernels, work.attended, output);
}

}  // namespace fathom
