#include "mixers/attention_mixer.h"

#include <algorithm>
#include <cmath>

#include "mixers/projection.h"

namespace fathom {
namespace {

/// Reorders a head from half-split pairs (i, i + dims/2) to interleaved pairs (2i, 2i + 1). x, spare: [dims].
void interleave_pairs(float* x, int dims, float* spare) {
  std::copy_n(x, dims, spare);
  for (int i = 0; i < dims / 2; ++i) {
    x[2 * i] = spare[i];
    x[2 * i + 1] = spare[dims / 2 + i];
  }
}

}  // namespace

std::unique_ptr<LayerState> AttentionMixer::new_state(const StateOptions& options) const {
  const StateOptions::Rotations& rotations = options.rotations[w_.rotary];
  PagedKvConfig config;
  config.store = options.pages.store({options.format, w_.key_dim, w_.value_dim, w_.value_offset});
  config.heads = w_.kv_heads;
  config.rotations = rotations.table;
  config.score_factor = rotations.score_factor;
  config.window = w_.window;
  config.page_tokens = options.page_tokens;
  return std::make_unique<PagedKv>(std::move(config));
}

void AttentionMixer::describe(AttendLayer& layer) const {
  layer.heads = w_.heads;
  layer.kv_heads = w_.kv_heads;
  layer.shape.key_dim = w_.key_dim;
  layer.shape.value_dim = w_.value_dim;
  layer.shape.value_offset = w_.value_offset;
}

/// Normalises the query and key heads of one row and makes their rotary pairs adjacent.
void AttentionMixer::prepare_heads(Workspace& work, int64_t row, int rotary_dims) const {
  const bool pairs = w_.pairing == RotaryConfig::Pairing::kHalfSplit && rotary_dims > 0;
  float spare[kMaxHeadDim];
  const auto prepare = [&](float* heads, int count, const std::vector<float>& norm) {
    for (int h = 0; h < count; ++h) {
      float* head = heads + static_cast<int64_t>(h) * w_.key_dim;
      if (!norm.empty()) work.kernels.rms_norm(head, norm.data(), w_.norm_eps, w_.key_dim, head);
      if (!w_.unit.empty()) work.kernels.rms_norm(head, w_.unit.data(), kUnitEps, w_.key_dim, head);
      if (pairs) interleave_pairs(head, rotary_dims, spare);
    }
  };
  prepare(work.q.data() + row * w_.heads * w_.key_dim, w_.heads, w_.q_norm);
  prepare(work.k.data() + row * w_.kv_heads * w_.key_dim, w_.kv_heads, w_.k_norm);
}

void AttentionMixer::keep_draft_queries(const SequenceRows& rows, const AttentionInput& input) const {
  if (!rows.draft_queries) return;
  DraftQueries::Layer& kept = rows.draft_queries->layers.at(w_.layer);
  kept.heads = w_.heads;
  kept.scale = input.scale;
  kept.form = input.form;
  const auto at = static_cast<size_t>(rows.draft_row * input.query_stride);
  kept.queries.resize(std::max<size_t>(kept.queries.size(), at + input.rows * input.query_stride));
  std::copy_n(input.queries, input.rows * input.query_stride, kept.queries.begin() + static_cast<int64_t>(at));
}

/// Writes the keys and values of one head of a sequence's opened tokens.
void AttentionMixer::write_head(Workspace& work, const SequenceRows& rows, int head) const {
  const bool separate_values = w_.value_offset < 0;
  const int64_t k_stride = static_cast<int64_t>(w_.kv_heads) * w_.key_dim,
                v_stride = separate_values ? static_cast<int64_t>(w_.kv_heads) * w_.value_dim : 0;
  const float* keys = work.k.data() + head * w_.key_dim;
  const float* values = separate_values ? work.v.data() + head * w_.value_dim : nullptr;
  PagedKv& kv = rows.sequence->kv(w_.layer);
  if (rows.shared_rows.empty())
    return kv.write(work.kernels, head, rows.rows, keys + rows.first_row * k_stride, k_stride,
                    values ? values + rows.first_row * v_stride : nullptr, v_stride);
  std::vector<int64_t> all(rows.shared_rows.begin(), rows.shared_rows.end());
  for (int64_t r = 0; r < rows.rows; ++r) all.push_back(rows.first_row + r);
  const int64_t count = std::ssize(all), value_dim = values ? w_.value_dim : 0;
  std::vector<float> gathered(count * (w_.key_dim + value_dim));
  float* gathered_values = gathered.data() + count * w_.key_dim;
  for (int64_t i = 0; i < count; ++i) {
    std::copy_n(keys + all[i] * k_stride, w_.key_dim, gathered.data() + i * w_.key_dim);
    if (values) std::copy_n(values + all[i] * v_stride, value_dim, gathered_values + i * value_dim);
  }
  kv.write(work.kernels, head, count, gathered.data(), w_.key_dim, values ? gathered_values : nullptr, value_dim);
}

void AttentionMixer::forward(Workspace& work, std::span<const SequenceRows> sequences, ActivationBuffer& x,
                             float* y) const {
  const int64_t rows = x.rows();
  const int64_t q_stride = static_cast<int64_t>(w_.heads) * w_.key_dim;
  const bool separate_values = w_.value_offset < 0;
  const int64_t k_stride = static_cast<int64_t>(w_.kv_heads) * w_.key_dim,
                v_stride = separate_values ? static_cast<int64_t>(w_.kv_heads) * w_.value_dim : 0;
  work.q.reserve(rows * q_stride);
  work.k.reserve(rows * k_stride);
  work.v.reserve(rows * v_stride);
  work.attended.resize(rows, static_cast<int64_t>(w_.heads) * w_.value_dim, x.step_rows());

  const Product projections[] = {
      {&w_.q, work.q.data(), w_.q_bias}, {&w_.k, work.k.data(), w_.k_bias}, {&w_.v, work.v.data(), w_.v_bias}};
  project(work, x, std::span(projections).first(separate_values ? 3 : 2));

  const int rotary_dims = 2 * sequences[0].sequence->kv(w_.layer).rotations().pairs();  // equal for all sequences
  work.pool.parallel_for(rows, [&](size_t r, int) { prepare_heads(work, static_cast<int64_t>(r), rotary_dims); });
  work.pool.parallel_for(sequences.size() * w_.kv_heads, [&](size_t i, int) {
    write_head(work, sequences[i / w_.kv_heads], static_cast<int>(i % w_.kv_heads));
  });
  work.attention_inputs.clear();
  for (const SequenceRows& s : sequences) {
    AttentionInput& input = work.attention_inputs.emplace_back();
    input.sequence = s.sequence;
    input.kv = &s.sequence->kv(w_.layer);
    input.layer = w_.layer;
    input.heads = w_.heads;
    input.rows = s.rows;
    input.positions = s.positions;
    input.queries = work.q.data() + s.first_row * q_stride;
    input.query_stride = q_stride;
    if (const AttentionForm* form = s.policy.selector->form(w_.layer)) {
      input.form = form;
    } else if (w_.form) {
      input.form = w_.form.get();
    }
    input.scale = input.kv->score_factor() * w_.scale;
    input.selector = s.policy.selector;
    input.selector_state = s.sequence->state(Sequence::StateOf::kSelector);
    input.listener = s.policy.listener;
    input.listener_state = s.sequence->state(Sequence::StateOf::kEvictor);
    input.watcher = s.policy.watcher;
    input.draft = s.draft;
    input.out = work.attended.row(s.first_row);
    keep_draft_queries(s, input);
  }
  work.attention.run(work.attention_inputs);

  const Product output[] = {{&w_.out, y, w_.out_bias}};
  project(work, work.attended, output);
}

}  // namespace fathom
