// Mamba-2, as equations (u: input, y: output of the scan, the last term is the output of the mixer):
// z, x, b, c, t = in·u;  x, b, c = silu(conv(x, b, c));  dt = softplus(t + bias)
// h = exp(dt·a)·h + dt·x·b;  y = h·c + d·x;  out·norm(y·silu(z))
#include "mixers/mamba2_mixer.h"

#include <algorithm>

#include "mixers/projection.h"

namespace fathom {
namespace {

enum Mamba2Tensor : size_t { kMamba2Conv, kMamba2Scan };

/// Blocks of at most this many rows are scanned row by row, longer ones by matrix products. Measured: products
/// become faster at 6 to 16 rows, later for narrower vectors; at 8 rows neither is more than a fifth slower than
/// the other.
constexpr int64_t kMaxScannedRows = 8;

}  // namespace

Mamba2Mixer::Mamba2Mixer(Mamba2Weights weights)
    : w_(std::move(weights)),
      layout_(std::make_shared<RecurrentLayout>(
          RecurrentLayout{{{"conv", w_.conv.state_size()}, {"scan", w_.inner * w_.state}}})) {}

std::unique_ptr<LayerState> Mamba2Mixer::new_state(const StateOptions& options) const {
  return std::make_unique<RecurrentState>(layout_, options.pages.budget());
}

void Mamba2Mixer::make_time_steps(Workspace& work, int64_t rows) const {
  RecurrenceBuffers& r = work.recurrence;
  r.time_steps.reserve(rows * w_.heads);
  work.pool.parallel_for(rows, [&](size_t row, int) {
    float* time = r.time_steps.data() + row * w_.heads;
    std::copy_n(r.projected.data() + (row + 1) * w_.in.rows - w_.heads, w_.heads, time);
    work.kernels.add(time, w_.time_bias.data(), w_.heads);
    work.kernels.softplus(time, w_.heads);
  });
}

/// Divides rows into blocks that begin at multiples of kSsdBlock tokens of the sequence, so that results do not
/// depend on where a pass begins or a state is stored.
void Mamba2Mixer::plan_blocks(Workspace& work, std::span<const SequenceRows> sequences) const {
  RecurrenceBuffers& r = work.recurrence;
  r.blocks.clear();
  r.first_block.assign(1, 0);
  for (const SequenceRows& s : sequences) {
    const RecurrentState& state = *s.sequence->recurrent(w_.layer);
    for_each_segment(state, [&](size_t segment, int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end;) {
        const int64_t rows = std::min(kSsdBlock - (state.tokens() + row) % kSsdBlock, end - row);
        r.blocks.push_back({segment, s.first_row + row, rows, rows > kMaxScannedRows});
        row += rows;
      }
    });
    r.first_block.push_back(r.blocks.size());
  }
}

/// Computes the products c·b between the rows of each block, which all heads of a group share.
void Mamba2Mixer::multiply_rows(Workspace& work, int64_t rows) const {
  RecurrenceBuffers& r = work.recurrence;
  r.products.reserve(w_.groups * rows * kSsdBlock);
  const int64_t scratch = ssd_scratch(0, w_.state);
  work.scratch.reserve(work.pool.threads() * scratch);
  work.pool.parallel_for(r.blocks.size() * w_.groups, [&](size_t i, int thread) {
    const RecurrenceBuffers::Block& block = r.blocks[i / w_.groups];
    if (!block.by_products) return;
    const auto group = static_cast<int64_t>(i % w_.groups);
    SsdProducts task;
    task.rows = block.rows;
    task.state = w_.state;
    task.b = r.convolved.row(block.first_row) + w_.inner + group * w_.state;
    task.c = task.b + w_.groups * w_.state;
    task.b_stride = task.c_stride = w_.conv.channels;
    task.products = r.products.data() + (group * rows + block.first_row) * kSsdBlock;
    work.kernels.ssd_products(task, work.scratch.data() + thread * scratch);
  });
}

/// Scans one head of one sequence.
void Mamba2Mixer::scan(Workspace& work, RecurrentState& state, std::span<const RecurrenceBuffers::Block> blocks,
                       int64_t head, float* scratch) const {
  RecurrenceBuffers& r = work.recurrence;
  const int64_t width = head_width(), group = head / (w_.heads / w_.groups);
  SsdHead task;
  task.width = width;
  task.state = w_.state;
  task.a = w_.a[head];
  task.d = w_.d[head];
  task.x_stride = task.b_stride = task.c_stride = task.y_stride = w_.conv.channels;
  task.dt_stride = w_.heads;
  for (size_t i = 0; i < blocks.size();) {
    const RecurrenceBuffers::Block& first = blocks[i];
    if (i == 0 || first.segment != blocks[i - 1].segment)
      task.h = carry_state(state, first.segment, kMamba2Scan, head * width * w_.state, width * w_.state);
    float* channels = r.convolved.row(first.first_row);
    task.x = task.y = channels + head * width;
    task.b = channels + w_.inner + group * w_.state;
    task.c = task.b + w_.groups * w_.state;
    task.dt = r.time_steps.data() + first.first_row * w_.heads + head;
    task.rows = first.rows;
    if (!first.by_products) {
      work.kernels.ssd_scan(task);
      ++i;
      continue;
    }
    // consecutive whole blocks and the block after them take one call
    for (++i; i < blocks.size() && blocks[i].by_products && blocks[i].segment == first.segment &&
              blocks[i - 1].rows == kSsdBlock;
         ++i)
      task.rows += blocks[i].rows;
    task.products = r.products.data() + (group * r.convolved.rows() + first.first_row) * kSsdBlock;
    work.kernels.ssd_chunk(task, scratch);
  }
}

void Mamba2Mixer::gate(Workspace& work, int64_t row) const {
  RecurrenceBuffers& r = work.recurrence;
  const float* y = r.convolved.row(row);
  const float* z = r.projected.data() + row * w_.in.rows;
  float* gated = r.gated.row(row);
  if (!w_.norm.empty()) {
    work.kernels.gated_group_norm(y, z, w_.norm.data(), w_.norm_eps, w_.groups, w_.inner / w_.groups, gated);
    return;
  }
  std::copy_n(z, w_.inner, gated);
  work.kernels.swiglu(gated, y, w_.inner);
}

void Mamba2Mixer::forward(Workspace& work, std::span<const SequenceRows> sequences, ActivationBuffer& x,
                          float* y) const {
  RecurrenceBuffers& r = work.recurrence;
  const int64_t rows = x.rows();
  r.projected.reserve(rows * w_.in.rows);
  r.convolved.resize(rows, w_.conv.channels, x.step_rows());
  r.gated.resize(rows, w_.inner, x.step_rows());
  const Product input[] = {{&w_.in, r.projected.data()}};
  project(work, x, input);
  w_.conv.forward(work, sequences, w_.layer, kMamba2Conv, r.projected.data() + w_.inner, w_.in.rows,
                  r.convolved.data());
  make_time_steps(work, rows);
  plan_blocks(work, sequences);
  multiply_rows(work, rows);
  const int64_t scratch = ssd_scratch(head_width(), w_.state);
  work.scratch.reserve(work.pool.threads() * scratch);
  work.pool.parallel_for(sequences.size() * w_.heads, [&](size_t i, int thread) {
    const size_t s = i / w_.heads;
    scan(work, *sequences[s].sequence->recurrent(w_.layer),
         std::span(r.blocks).subspan(r.first_block[s], r.first_block[s + 1] - r.first_block[s]),
         static_cast<int64_t>(i % w_.heads), work.scratch.data() + thread * scratch);
  });
  work.pool.parallel_for(rows, [&](size_t row, int) { gate(work, static_cast<int64_t>(row)); });
  const Product output[] = {{&w_.out, y}};
  project(work, r.gated, output);
}

}  // namespace fathom
