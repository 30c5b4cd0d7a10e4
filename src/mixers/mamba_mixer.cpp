// Mamba, as equations (u: input, y: output of the scan, the last term is the output of the mixer):
// x, z = in·u;  x = silu(conv(x));  t, b, c = select·x;  dt = softplus(time·t + bias)
// h = exp(dt·a)·h + dt·x·b;  y = h·c + d·x;  out·(y·silu(z))
#include "mixers/mamba_mixer.h"

#include <algorithm>

#include "mixers/projection.h"

namespace fathom {
namespace {

enum MambaTensor : size_t { kConv, kScan };

/// Channels of a task, and rows that it processes at a time. Their values are copied to contiguous scratch memory,
/// because most row strides are powers of two, which map to few cache sets.
constexpr int64_t kScanChannels = 64, kScanRows = 32;

/// Copies `rows` rows of n floats.
void copy_rows(const float* from, int64_t from_stride, int64_t rows, int64_t n, float* to, int64_t to_stride) {
  for (int64_t r = 0; r < rows; ++r) std::copy_n(from + r * from_stride, n, to + r * to_stride);
}

}  // namespace

MambaMixer::MambaMixer(MambaWeights weights)
    : w_(std::move(weights)),
      layout_(std::make_shared<RecurrentLayout>(
          RecurrentLayout{{{"conv", w_.conv.state_size()}, {"scan", w_.inner * w_.state}}})) {}

std::unique_ptr<LayerState> MambaMixer::new_state(const StateOptions& options) const {
  return std::make_unique<RecurrentState>(layout_, options.pages.budget());
}

/// Computes the time steps before softplus, and normalised b and c.
void MambaMixer::make_coefficients(Workspace& work, int64_t rows) const {
  RecurrenceBuffers& r = work.recurrence;
  const int64_t stride = w_.select.rows;
  r.coefficients.reserve(rows * stride);
  r.low_rank.resize(rows, w_.rank, r.convolved.step_rows());
  r.time_steps.reserve(rows * w_.inner);
  const Product select[] = {{&w_.select, r.coefficients.data()}};
  project(work, r.convolved, select);
  work.pool.parallel_for(rows, [&](size_t row, int) {
    float* all = r.coefficients.data() + row * stride;
    const auto norm = [&](float* x, const std::vector<float>& weight) {
      if (!weight.empty()) work.kernels.rms_norm(x, weight.data(), w_.norm_eps, std::ssize(weight), x);
    };
    norm(all, w_.time_norm);
    norm(all + w_.rank, w_.b_norm);
    norm(all + w_.rank + w_.state, w_.c_norm);
    std::copy_n(all, w_.rank, r.low_rank.row(static_cast<int64_t>(row)));
  });
  const Product time[] = {{&w_.time, r.time_steps.data(), w_.time_bias}};
  project(work, r.low_rank, time);
}

/// Scans and gates at most kScanRows rows of the batch, channels [begin, end). h: state of all channels, updated.
void MambaMixer::scan_rows(Workspace& work, int64_t first_row, int64_t rows, int64_t begin, int64_t end, float* h,
                           float* scratch) const {
  RecurrenceBuffers& r = work.recurrence;
  const int64_t channels = end - begin, projected = 2 * w_.inner;
  float *time = scratch, *x = time + kScanRows * kScanChannels, *z = x + kScanRows * kScanChannels;
  copy_rows(r.time_steps.data() + first_row * w_.inner + begin, w_.inner, rows, channels, time, channels);
  copy_rows(r.convolved.row(first_row) + begin, w_.inner, rows, channels, x, channels);
  copy_rows(r.projected.data() + first_row * projected + w_.inner + begin, projected, rows, channels, z, channels);
  work.kernels.softplus(time, rows * channels);
  SelectiveScan task;
  task.rows = rows;
  task.end = channels;
  task.state = w_.state;
  task.x = task.y = x;
  task.dt = time;
  task.x_stride = task.y_stride = task.dt_stride = channels;
  task.a = w_.a.data() + begin * w_.state;
  task.b = r.coefficients.data() + first_row * w_.select.rows + w_.rank;
  task.c = task.b + w_.state;
  task.b_stride = task.c_stride = w_.select.rows;
  task.d = w_.d.data() + begin;
  task.h = h + begin * w_.state;
  work.kernels.selective_scan(task);
  work.kernels.swiglu(z, x, rows * channels);
  copy_rows(z, channels, rows, channels, r.gated.row(first_row) + begin, w_.inner);
}

void MambaMixer::scan(Workspace& work, const SequenceRows& s, int64_t begin, int64_t end, float* scratch) const {
  RecurrentState& state = *s.sequence->recurrent(w_.layer);
  for_each_segment(state, [&](size_t segment, int64_t first, int64_t last) {
    carry_state(state, segment, kScan, begin * w_.state, (end - begin) * w_.state);
    float* h = state.after(segment, kScan);
    for (int64_t r = first; r < last; r += kScanRows)
      scan_rows(work, s.first_row + r, std::min(kScanRows, last - r), begin, end, h, scratch);
  });
}

void MambaMixer::forward(Workspace& work, std::span<const SequenceRows> sequences, ActivationBuffer& x,
                         float* y) const {
  RecurrenceBuffers& r = work.recurrence;
  const int64_t rows = x.rows();
  r.projected.reserve(rows * 2 * w_.inner);
  r.convolved.resize(rows, w_.inner, x.step_rows());
  r.gated.resize(rows, w_.inner, x.step_rows());
  const Product input[] = {{&w_.in, r.projected.data()}};
  project(work, x, input);
  w_.conv.forward(work, sequences, w_.layer, kConv, r.projected.data(), 2 * w_.inner, r.convolved.data());
  make_coefficients(work, rows);
  const int64_t blocks = (w_.inner + kScanChannels - 1) / kScanChannels;
  constexpr int64_t kScratch = 3 * kScanRows * kScanChannels;
  work.scratch.reserve(work.pool.threads() * kScratch);
  work.pool.parallel_for(sequences.size() * blocks, [&](size_t i, int thread) {
    const int64_t begin = static_cast<int64_t>(i % blocks) * kScanChannels;
    scan(work, sequences[i / blocks], begin, std::min(begin + kScanChannels, w_.inner),
         work.scratch.data() + thread * kScratch);
  });
  const Product output[] = {{&w_.out, y}};
  project(work, r.gated, output);
}

}  // namespace fathom
