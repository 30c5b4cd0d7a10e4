#include "models/transformer.h"

#include <algorithm>

#include "base/error.h"
#include "base/interrupt.h"
#include "kernels/quantize.h"

namespace fathom {
namespace {

/// x += y, [rows, width].
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

void FeedForward::forward(Workspace& work, ActivationBuffer& x, float* y) const {
  const int64_t rows = x.rows(), inner = up.rows;
  work.inner.resize(rows, inner);
  if (gate.empty()) {
    const Product project[] = {{&up, work.inner.data(), up_bias}};
    matmul(work.pool, work.kernels, x, project);
    work.pool.parallel_for(rows, [&](size_t r, int) { work.kernels.gelu(work.inner.row(r), inner); });
  } else {
    work.up.reserve(rows * inner);
    const Product project[] = {{&gate, work.inner.data()}, {&up, work.up.data(), up_bias}};
    matmul(work.pool, work.kernels, x, project);
    work.pool.parallel_for(
        rows, [&](size_t r, int) { work.kernels.swiglu(work.inner.row(r), work.up.data() + r * inner, inner); });
  }
  const Product back[] = {{&down, y, down_bias}};
  matmul(work.pool, work.kernels, work.inner, back);
}

void Transformer::embed(Workspace& work, std::span<const SequenceRows> sequences,
                        std::span<const int32_t> tokens) const {
  for (size_t i = 0; i < tokens.size(); ++i) {
    dequantize_row(embedding.type, embedding.row(tokens[i]), work.hidden.data() + i * width, width);
  }
  if (position_embedding.empty()) return;
  std::vector<float> position(width);
  for (const SequenceRows& s : sequences) {
    for (int64_t r = 0; r < s.rows; ++r) {
      if (s.positions[r] >= position_embedding.rows) {
        fail("position ", s.positions[r], " is beyond the ", position_embedding.rows,
             " positions this model has learned");
      }
      dequantize_row(position_embedding.type, position_embedding.row(s.positions[r]), position.data(), width);
      work.kernels.add(work.hidden.data() + (s.first_row + r) * width, position.data(), width);
    }
  }
}

void Transformer::forward(Workspace& work, std::span<const SequenceRows> sequences, std::span<const int32_t> tokens,
                          int layers_run) const {
  const auto rows = static_cast<int64_t>(tokens.size());
  work.hidden.reserve(rows * width);
  work.update.reserve(rows * width);
  work.normed.resize(rows, width);
  float* x = work.hidden.data();       // [rows, width]
  float* update = work.update.data();  // [rows, width]

  embed(work, sequences, tokens);
  for (const TransformerLayer& layer : std::span(layers).first(layers_run)) {
    throw_if_interrupted();
    layer.mixer_norm.apply(work, x, rows, work.normed.data());
    layer.mixer->forward(work, sequences, work.normed, update);
    add_rows(work, x, update, rows, width);

    layer.ffn_norm.apply(work, x, rows, work.normed.data());
    layer.ffn.forward(work, work.normed, update);
    add_rows(work, x, update, rows, width);
  }
  output_norm.apply(work, x, rows, work.normed.data());
}

void Transformer::logits(Workspace& work, ActivationBuffer& x, float* logits) const {
  const Product project[] = {{&output, logits}};
  matmul(work.pool, work.kernels, x, project);
}

size_t Transformer::weight_bytes() const {
  size_t bytes = 0;
  for (const Matrix& m : matrices) bytes += m.bytes();
  return bytes;
}

int64_t Transformer::multiply_adds() const {
  int64_t total = 0;
  for (const Matrix& m : matrices) total += m.rows * m.cols;
  return total;
}

}  // namespace fathom
