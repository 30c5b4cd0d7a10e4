#pragma once

#include <cstdint>

namespace fathom {

// Tasks of state-space layers. A kernel reads and updates a state, so that a sequence can be processed in any
// number of calls. Matrices without a stride are dense.

/// The largest width of ConvTask.
inline constexpr int kMaxConvWidth = 8;

/// Depthwise causal convolution: y[r, c] = bias[c] + Σ_k weight[c, k] · x[r − (width − 1) + k, c], then SiLU if
/// `silu`. `ring` holds the inputs before row 0. Results have the same bits for any split of the rows or channels.
struct ConvTask {
  int64_t rows = 0;
  int64_t begin = 0, end = 0;  // the channels computed
  int64_t channels = 0;        // channels of a row of `ring`
  int width = 0;               // 1 … kMaxConvWidth
  bool silu = false;
  const float* x = nullptr;  // [rows, ≥ end]
  int64_t x_stride = 0;
  const float* weight = nullptr;  // [channels, width]
  const float* bias = nullptr;    // [channels], or null
  float* ring = nullptr;          // [width − 1, channels]: the inputs before the next row, oldest first
  float* y = nullptr;             // [rows, ≥ end]; must not be x
  int64_t y_stride = 0;
};

/// The recurrence of Mamba-1 (Mamba: Linear-Time Sequence Modeling with Selective State Spaces, 2023):
///   h[c, n] = exp(dt[r, c] · a[c, n]) · h[c, n] + dt[r, c] · x[r, c] · b[r, n]
///   y[r, c] = Σ_n h[c, n] · c[r, n] + d[c] · x[r, c]
/// Results have the same bits for any split of the rows or channels.
struct SelectiveScan {
  int64_t rows = 0;
  int64_t begin = 0, end = 0;  // the channels computed
  int64_t state = 0;           // n
  const float* x = nullptr;    // [rows, ≥ end]
  int64_t x_stride = 0;
  const float* dt = nullptr;  // [rows, ≥ end], after softplus: ≥ 0
  int64_t dt_stride = 0;
  const float* a = nullptr;  // [channels, state], ≤ 0
  const float* b = nullptr;  // [rows, state]
  int64_t b_stride = 0;
  const float* c = nullptr;  // [rows, state]
  int64_t c_stride = 0;
  const float* d = nullptr;  // [channels], or null: the term is omitted
  float* h = nullptr;        // [channels, state]
  float* y = nullptr;        // [rows, ≥ end]; may be x
  int64_t y_stride = 0;
};

/// The recurrence of one head of Mamba-2 (Transformers are SSMs, 2024), with one decay for the whole state:
///   h[p, n] = exp(dt[r] · a) · h[p, n] + dt[r] · x[r, p] · b[r, n]
///   y[r, p] = Σ_n h[p, n] · c[r, n] + d · x[r, p]
struct SsdHead {
  int64_t rows = 0;
  int64_t width = 0;  // p
  int64_t state = 0;  // n
  float a = 0;        // ≤ 0
  float d = 0;
  const float* x = nullptr;  // [rows, width]
  int64_t x_stride = 0;
  const float* dt = nullptr;  // [rows], with stride `dt_stride`, after softplus: ≥ 0
  int64_t dt_stride = 0;
  const float* b = nullptr;  // [rows, state]
  int64_t b_stride = 0;
  const float* c = nullptr;  // [rows, state]
  int64_t c_stride = 0;
  const float* products = nullptr;  // for ssd_chunk: null, or the result of ssd_products for b and c
  float* h = nullptr;               // [width, state]
  float* y = nullptr;               // [rows, width]; may be x
  int64_t y_stride = 0;
};

/// Rows per block of matrix products in ssd_chunk. Tuned with width 64 and state 128.
inline constexpr int64_t kSsdBlock = 32;

/// Dot products c[r]·b[j] of rows r and j ≤ r in the same block of kSsdBlock rows. Heads that share b and c share
/// the products.
struct SsdProducts {
  int64_t rows = 0;
  int64_t state = 0;
  const float* b = nullptr;  // [rows, state]
  int64_t b_stride = 0;
  const float* c = nullptr;  // [rows, state]
  int64_t c_stride = 0;
  float* products = nullptr;  // [rows, kSsdBlock]: at [r, j % kSsdBlock]; elements beyond r are undefined
};

/// Returns the floats of scratch that Kernels::ssd_chunk and ssd_products need (width 0 is enough for
/// ssd_products).
inline int64_t ssd_scratch(int64_t width, int64_t state) {
  const int64_t padded = (width + 31) / 32 * 32;  // whole panels of two vectors
  return (state + kSsdBlock) * (padded + kSsdBlock);
}

}  // namespace fathom
