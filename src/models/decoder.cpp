#include "models/decoder.h"

#include <algorithm>

#include "base/error.h"
#include "kernels/quantize.h"
#include "mixers/projection.h"

namespace fathom {
namespace {

/// x += y; both [rows, width].
void add_rows(Workspace& work, float* x, const float* y, int64_t rows, int64_t width) {
  work.pool.parallel_for(rows, [&](size_t r, int) { work.kernels.add(x + r * width, y + r * width, width); });
}

}  // namespace

void Norm::apply(Workspace& work, const float* x, int64_t rows, float* out) const {
  const auto width = static_cast<int64_t>(weight.size());
  work.pool.parallel_for(rows, [&](size_t r, int) {
    if (bias.empty()) {
      work.kernels.rms_norm(x + r * width, weight.data(), eps, width, out + r * width);
    } else {
      work.kernels.layer_norm(x + r * width, weight.data(), bias.data(), eps, width, out + r * width);
    }
  });
}

std::vector<std::unique_ptr<LayerState>> Decoder::new_states(const StateOptions& options, int count) const {
  std::vector<std::unique_ptr<LayerState>> states;
  for (const DecoderLayer& layer : std::span(layers).first(count)) {
    std::vector<std::unique_ptr<LayerState>> layer_states;
    for (const ResidualBlock& block : layer.blocks)
      for (const auto& mixer : block.mixers) layer_states.push_back(mixer->new_state(options));
    if (layer_states.size() == 1) {
      states.push_back(std::move(layer_states[0]));
      continue;
    }
    std::unique_ptr<LayerState> paged, recurrent;
    for (auto& state : layer_states) (state->paged() ? paged : recurrent) = std::move(state);
    states.push_back(std::make_unique<CombinedState>(std::move(paged), std::move(recurrent)));
  }
  return states;
}

void Decoder::embeddings(Workspace& work, std::span<const int32_t> tokens, float* out) const {
  for (size_t r = 0; r < tokens.size(); ++r) {
    dequantize_row(embedding.type, embedding.row(tokens[r]), out + r * width, width);
    if (embedding_scale != 1) work.kernels.scale(out + r * width, embedding_scale, width);
  }
}

void Decoder::embed(Workspace& work, const SequenceRows& rows, std::span<const int32_t> tokens) const {
  float* x = work.hidden.data() + rows.first_row * width;
  if (rows.embeddings) {
    std::copy_n(rows.embeddings, rows.rows * width, x);
  } else {
    embeddings(work, tokens.subspan(rows.first_row, rows.rows), x);
  }
  if (position_embedding.empty()) return;
  std::vector<float> position(width);
  for (int64_t r = 0; r < rows.rows; ++r) {
    if (rows.positions[r] >= position_embedding.rows) {
      fail("position ", rows.positions[r], " is out of range: this model has ", position_embedding.rows,
           " learned positions");
    }
    dequantize_row(position_embedding.type, position_embedding.row(rows.positions[r]), position.data(), width);
    work.kernels.add(x + r * width, position.data(), width);
  }
}

void Decoder::run_block(Workspace& work, const ResidualBlock& block, std::span<const SequenceRows> sequences,
                        int64_t rows) const {
  float* x = work.hidden.data();       // [rows, width]
  float* update = work.update.data();  // [rows, width]
  if (block.pre.empty()) {
    std::copy_n(x, rows * width, work.normed.data());
  } else {
    block.pre.apply(work, x, rows, work.normed.data());
  }
  bool first = true;
  const auto run = [&](const auto& branch) {
    if (first) {
      branch(update);
    } else {
      work.branch.reserve(rows * width);
      branch(work.branch.data());
      add_rows(work, update, work.branch.data(), rows, width);
    }
    first = false;
  };
  for (const auto& mixer : block.mixers) run([&](float* y) { mixer->forward(work, sequences, work.normed, y); });
  for (const auto& ffn : block.feed_forwards) run([&](float* y) { ffn->forward(work, work.normed, y); });
  if (!block.post.empty()) block.post.apply(work, update, rows, update);
  add_rows(work, x, update, rows, width);
}

void Decoder::forward(Workspace& work, std::span<const SequenceRows> sequences, std::span<const int32_t> tokens,
                      int layers_run, const LayerHooks& hooks) const {
  const auto rows = static_cast<int64_t>(tokens.size());
  work.hidden.reserve(rows * width);
  work.update.reserve(rows * width);
  work.normed.resize(rows, width, step_rows(sequences));
  work.adapted_rows.clear();
  for (const SequenceRows& s : sequences) {
    embed(work, s, tokens);
    const auto adapters = s.sequence->adapters();
    if (!adapters.empty()) work.adapted_rows.push_back({s.first_row, s.first_row + s.rows, adapters});
  }
  for (int i = 0; i < layers_run; ++i) {
    if (hooks.before) hooks.before(i, work.hidden.data());
    for (const ResidualBlock& block : layers[i].blocks) run_block(work, block, sequences, rows);
    if (hooks.after) hooks.after(i, work.hidden.data());
  }
  output_norm.apply(work, work.hidden.data(), rows, work.normed.data());
}

void Decoder::logits(Workspace& work, ActivationBuffer& x, float* logits) const {
  const Product products[] = {{&output, logits}};
  project(work, x, products);
}

std::vector<AttendLayer> Decoder::attention() const {
  std::vector<AttendLayer> all(layers.size());
  for (size_t i = 0; i < layers.size(); ++i)
    for (const ResidualBlock& block : layers[i].blocks)
      for (const auto& mixer : block.mixers) mixer->describe(all[i]);
  return all;
}

const Matrix* Decoder::output_projection(int layer) const {
  for (const ResidualBlock& block : layers[layer].blocks)
    for (const auto& mixer : block.mixers)
      if (const Matrix* projection = mixer->output_projection()) return projection;
  return nullptr;
}

const Matrix* Decoder::projection(std::string_view name) const {
  const auto found = projections.find(name);
  return found == projections.end() ? nullptr : &found->second;
}

double Decoder::weight_bytes(int64_t rows) const {
  double bytes = 0;
  for (const Matrix& m : matrices) bytes += static_cast<double>(m.bytes());
  for (const DecoderLayer& layer : layers)
    for (const ResidualBlock& block : layer.blocks)
      for (const auto& ffn : block.feed_forwards) bytes += ffn->weight_bytes(rows);
  return bytes;
}

int64_t Decoder::multiply_adds() const {
  int64_t total = 0;
  for (const Matrix& m : matrices) total += m.rows * m.cols;
  for (const DecoderLayer& layer : layers)
    for (const ResidualBlock& block : layer.blocks)
      for (const auto& ffn : block.feed_forwards) total += ffn->multiply_adds();
  return total;
}

}  // namespace fathom
