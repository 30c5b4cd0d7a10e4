#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernels/pages.h"
#include "kernels/scan.h"
#include "kernels/types.h"
#include "kernels/weight_function.h"

namespace fathom {

/// Activation rows are padded with zeros to a multiple of this many columns, the size of the largest weight block.
inline constexpr int64_t kColumnPad = 256;
inline int64_t padded_columns(int64_t cols) { return (cols + kColumnPad - 1) / kColumnPad * kColumnPad; }

/// Up to this many rows of activations, matvec is faster than matmul, because the rows share the unpacking of each
/// row of weights.
inline constexpr int64_t kMatvecRows = 8;

/// From this many queries on, unpacking a page into a tile costs less than unpacking it for every group of queries.
inline constexpr int kTileQueries = 16;

/// A tile of activations has this many rows and 32 columns. Missing rows and columns are zero.
inline constexpr int64_t kTileTokens = 16;
inline int64_t tile_columns(int64_t cols) { return (cols + 31) / 32 * 32; }
/// Returns the number of elements in ActivationRows::tiles (or tiles_low) for `rows` rows of `cols` columns.
inline int64_t tile_elements(int64_t rows, int64_t cols) {
  return (rows + kTileTokens - 1) / kTileTokens * kTileTokens * tile_columns(cols);
}

/// Returns the index of a column in a row of 8-bit activations of a table with interleaved_activations (vectors of
/// 64 bytes). In each 256 columns, the first eight columns of every group of 32 are adjacent, followed by the next
/// eight of every group, and so on.
inline int64_t interleaved_column(int64_t column) {
  return column / 256 * 256 + column % 32 / 8 * 64 + column % 256 / 32 * 8 + column % 8;
}

/// Rows of activations in the forms that matrix products read. Float weights use `f32`. Quantised weights use 8-bit
/// values with one scale per 32 columns. Scales and sums are stored per 16 columns, so that weight types with
/// groups of 16 and of 32 index them alike. Matmuls on matrix tiles (Kernels::pack_activations) use `tiles`, and
/// for float weights also `tiles_low`.
struct ActivationRows {
  int64_t rows = 0;
  int64_t cols = 0;
  const float* f32 = nullptr;    // [rows, cols]
  const int8_t* q = nullptr;     // [rows, padded_columns(cols)], in the column order of the table that reads them
  const float* scale = nullptr;  // [rows, padded_columns(cols) / 16]; each scale is stored twice
  const float* sum = nullptr;    // [rows, padded_columns(cols) / 16]: scale · Σ q
  const float* pair_sum = nullptr;  // [rows, padded_columns(cols) / 32]: the sum over both halves of a scale
  // bfloat16 [rows/16, columns/32, 16, 16, 2]: tiles of [pair of columns, token, 2]
  const uint16_t* tiles = nullptr;
  const uint16_t* tiles_low = nullptr;  // the remainders of rounding to bfloat16, themselves rounded
};

/// The byte count of Kernels::read must be a multiple of this.
inline constexpr size_t kReadStep = 1024;

/// One page as the attention kernel reads it (layouts at PageFormat). Keys are rotated by their offset in the page.
struct PageRead {
  const std::byte* keys = nullptr;
  const std::byte* values = nullptr;    // if AttendTask::value_offset >= 0: the page's keys, in the layout of keys
  const float* cos = nullptr;           // [rotary_dim/2]: rotation by the page's position; null: no rotation
  const float* sin = nullptr;           // [rotary_dim/2]
  uint64_t mask = 0;                    // visible tokens
  const uint64_t* row_masks = nullptr;  // null, or [rows]: a mask for each row, ANDed with `mask`
};

/// Attention of query rows of one key/value head over a list of pages: out = Σ w v / Σ w, exact over the tokens in
/// the pages' masks. The weights w are exp(q·k), which gives softmax attention, unless `weights` is set.
struct AttendTask {
  PageFormat format = PageFormat::kBF16;
  int key_dim = 0;
  int value_dim = 0;
  int rotary_dim = 0;  // leading dimensions of a key that are rotated
  // -1: pages have separate values. Otherwise the value is dimensions [value_offset, value_offset + value_dim) of
  // the key, none of which is rotated.
  int value_offset = -1;
  int rows = 0;   // query tokens
  int group = 0;  // query heads that share this key/value head
  // [rows, group, key_dim]: rotated by their positions and scaled; the elements of a rotary pair are adjacent
  const float* queries = nullptr;
  const PageRead* pages = nullptr;
  int64_t page_count = 0;
  WeightFunction weights{};
  // Results. In all page formats they are NaN for a query with an element that is not finite.
  float* out = nullptr;   // [rows, group, value_dim]; 0 if no token has weight. Null: only lse is computed
  float* lse = nullptr;   // [rows, group]: log Σ of the weights; −infinity if no token has weight
  float* mass = nullptr;  // null, or [rows, group, page_count]: each page's share of the weights
};

/// Dot products of queries with all 64 keys of a page, as stored.
struct ScoreTask {
  PageFormat format = PageFormat::kBF16;
  int key_dim = 0;
  const std::byte* keys = nullptr;
  const float* queries = nullptr;  // [queries_count, key_dim], inverse-rotated by the page's position
  int queries_count = 0;
  float* scores = nullptr;  // [queries_count, 64]
};

/// Upper bounds of the dot products of queries with the keys of `columns` groups of each page. Every element of a
/// key of a group is between the group's minimum and maximum of its dimension, so Σ_i (below[i] · minimum[i] +
/// above[i] · maximum[i]) is a bound.
struct BoundTask {
  // Word i of a page belongs to group i % columns: bfloat16 of the minimum in its low half, of the maximum in its
  // high half.
  const uint32_t* bounds = nullptr;  // [pages, n]
  int64_t pages = 1;
  // For word i and each query: the query's element if it is negative (below) or positive (above), otherwise 0.
  const float* below = nullptr;  // [count, n]
  const float* above = nullptr;  // [count, n]
  int64_t n = 0;                 // a multiple of kBoundWords
  int count = 0;                 // queries
  int columns = 1;               // groups of keys per page: 1, 2 or 4
  float* out = nullptr;          // [pages, columns]: the largest bound of all queries; −∞ without queries
};
inline constexpr int64_t kBoundWords = 16;

/// y = a·b, or y += a·b, for float matrices whose rows have strides.
struct FloatProduct {
  int64_t rows = 0, cols = 0, depth = 0;
  const float* a = nullptr;  // [rows, depth], or transposed: [depth, rows]
  int64_t a_stride = 0;
  bool a_transposed = false;
  const float* b = nullptr;  // [depth, cols], or transposed: [cols, depth]
  int64_t b_stride = 0;
  bool b_transposed = false;
  float* y = nullptr;  // [rows, cols]
  int64_t y_stride = 0;
  bool add = false;  // adds to y instead of overwriting it
};

/// Floats of scratch that Kernels::multiply and multiply_bf16 need.
inline constexpr int64_t kMultiplyScratch = 256 * (512 + 96);

/// The kernels of one instruction set. They neither allocate nor throw. Results do not depend on the number of
/// threads.
struct Kernels {
  std::string isa;

  /// Quantises x: [cols] to 8 bits with one scale per 32 columns. Outputs as in ActivationRows, padding included.
  void (*quantize_activations)(const float* x, int64_t cols, int8_t* q, float* scale, float* sum, float* pair_sum);
  bool interleaved_activations = false;  // whether q is in the order of interleaved_column
  /// Rounds x: [rows ≤ 16, cols] to tiles as in ActivationRows, [columns/32, 16, 16, 2] each; low may be null. Null
  /// if matmul reads the other forms.
  void (*pack_activations)(const float* x, int64_t rows, int64_t cols, uint16_t* high, uint16_t* low) = nullptr;

  /// y[i, r] = W[r]·x[i] for r in [begin, end) and all rows i of x; y: [x.rows, y_stride]. Processes W row by row,
  /// for few rows of x.
  void (*matvec)(const Matrix& w, int64_t begin, int64_t end, const ActivationRows& x, float* y, int64_t y_stride);
  /// Like matvec, for many rows of x: each panel of W is unpacked once. begin is a multiple of panel_rows.
  void (*matmul)(const Matrix& w, int64_t begin, int64_t end, const ActivationRows& x, float* y, int64_t y_stride);
  int64_t panel_rows;  // rows of W in a panel of matmul
  /// Computes a product for training. scratch: [kMultiplyScratch], aligned to 64 bytes.
  void (*multiply)(const FloatProduct& product, float* scratch);
  /// Like multiply, with factors rounded to bfloat16 (to nearest, ties to even; subnormal numbers count as 0) and
  /// float sums. Null if the processor has no instruction for it.
  void (*multiply_bf16)(const FloatProduct& product, float* scratch) = nullptr;

  /// Computes the attention of a task. scratch: [attend_scratch(key_dim, value_dim, rows · group)] floats, aligned
  /// to 64 bytes.
  void (*attend)(const AttendTask& task, float* scratch);
  // Weight functions for AttendTask::weights.
  WeightFunction::Apply softplus_weights;  // SoftplusConstants, SoftplusQuery
  WeightFunction::Apply capped_weights;    // CapConstants
  /// Computes the scores of a page. scratch: [64 · key_dim], aligned to 64 bytes.
  void (*score_page)(const ScoreTask& task, float* scratch);
  /// Computes the largest bounds of each page.
  void (*largest_bounds)(const BoundTask& task);
  /// Writes tokens into a page.
  void (*write_page)(const PageWrite& write);

  /// out = x / rms(x) · weight; all [n]. out may be x.
  void (*rms_norm)(const float* x, const float* weight, float eps, int64_t n, float* out);
  /// out = (x − mean) / std · weight + bias; all [n]. out may be x.
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float eps, int64_t n, float* out);
  /// Rotates pairs (x[2i], x[2i+1]) by angle i; cos, sin: [pairs].
  void (*rotate_pairs)(float* x, const float* cos, const float* sin, int64_t pairs);
  /// gate = silu(gate) · up; [n].
  void (*swiglu)(float* gate, const float* up, int64_t n);
  /// gate = gelu(gate) · up, with the tanh form of gelu; [n].
  void (*geglu)(float* gate, const float* up, int64_t n);
  /// The gate of gpt-oss: with g = min(gate, 7) and u = up clamped to ±7, gate = g · sigmoid(1.702 g) · (u + 1);
  /// [n].
  void (*swiglu_oai)(float* gate, const float* up, int64_t n);
  /// x = gelu(x), in the tanh form; [n].
  void (*gelu)(float* x, int64_t n);
  /// x = x · sigmoid(x); [n].
  void (*silu)(float* x, int64_t n);
  /// x = max(x, 0)²; [n].
  void (*relu_squared)(float* x, int64_t n);
  /// x = ln(1 + eˣ), or x if x > 20; [n].
  void (*softplus)(float* x, int64_t n);
  /// x += y; [n].
  void (*add)(float* x, const float* y, int64_t n);
  /// x = softmax(x) in place; [n]. Returns log Σ exp.
  float (*softmax)(float* x, int64_t n);

  // State-space layers (scan.h).
  void (*causal_conv)(const ConvTask& task);
  void (*selective_scan)(const SelectiveScan& task);
  /// One head of Mamba-2, row by row. Results have the same bits for any split of the rows.
  void (*ssd_scan)(const SsdHead& head);
  /// Like ssd_scan, by matrix products over blocks of kSsdBlock rows; for many rows. Results differ from those of
  /// ssd_scan by about 1e-6 of the largest result. scratch: [ssd_scratch(width, state)], aligned to 64 bytes.
  void (*ssd_chunk)(const SsdHead& head, float* scratch);
  /// scratch: [ssd_scratch(0, state)], aligned to 64 bytes.
  void (*ssd_products)(const SsdProducts& task, float* scratch);
  /// The norm of Mamba-2 for one row: with t = x · silu(z), out = t / rms(t) · weight in each of `groups` groups;
  /// all [groups, width]. out may be x.
  void (*gated_group_norm)(const float* x, const float* z, const float* weight, float eps, int64_t groups,
                           int64_t width, float* out);

  // Gradients, for training. dy is the gradient of the result; all [n].
  /// Overwrites dx with the gradient of x, and adds the gradient of weight to dweight.
  void (*rms_norm_backward)(const float* x, const float* weight, const float* dy, float eps, int64_t n, float* dx,
                            float* dweight);
  /// Gradients of silu(gate) · up. Overwrites dgate and dup.
  void (*swiglu_backward)(const float* gate, const float* up, const float* dy, int64_t n, float* dgate, float* dup);
  /// x: scores with the log-sum-exp `lse`; dy: the gradient of their softmax p; dy_dot_p = Σ dy·p. Overwrites x
  /// with p, and dy with the gradient of the scores.
  void (*softmax_backward)(float lse, float dy_dot_p, int64_t n, float* x, float* dy);
  /// Replaces x by exp(x − max x), sets *sum to the sum of the new values and returns the old maximum. n ≥ 1.
  float (*exponentials)(float* x, int64_t n, float* sum);
  /// x = x · factor.
  void (*scale)(float* x, float factor, int64_t n);

  /// Performs at least n multiply-adds in registers, with the instructions that matmul uses for quantised weights,
  /// and returns their number. Adds the results to *sink, so that the compiler keeps them. Measures the machine's
  /// limits.
  int64_t (*peak)(int64_t n, float* sink);
  /// Like peak, with float multiply-adds, and with products of bfloat16 numbers (null if there is no instruction
  /// for them; not necessarily faster than peak_f32).
  int64_t (*peak_f32)(int64_t n, float* sink);
  int64_t (*peak_bf16)(int64_t n, float* sink);
  /// Returns the sum of all 32-bit words of bytes[n], wrapping around. Measures the memory bandwidth. n is a
  /// multiple of kReadStep. May prefetch up to 1 KiB beyond the end.
  uint32_t (*read)(const std::byte* bytes, size_t n);
};

/// Returns the floats of scratch that Kernels::attend needs for `queries` = rows · group.
size_t attend_scratch(int key_dim, int value_dim, int queries);

/// Returns the best table for this machine, or the one that the environment variable FATHOM_ISA names. The table is
/// chosen at the first call. Throws Error if FATHOM_ISA is unknown or not available here. Programs use it, and
/// Runtime by default; inference code uses the table that it is passed.
const Kernels& kernels();
/// Returns the table named `isa`: "reference", "avx2", "avx512" (with VNNI if the machine has it), "avx512f"
/// (without VNNI), "amx" (matrix tiles, and AVX-512 for the rest) or "neon". Throws Error if it is unknown or not
/// available here.
const Kernels& kernels(const std::string& isa);
/// Returns the table of "amx" without checking that the machine has tiles, for tests that emulate them. Returns
/// nullopt if the machine lacks the AVX-512 instructions that these kernels also use.
std::optional<Kernels> amx_kernels();
/// Returns the names of the tables that this machine can run: "reference" first, the best last.
std::vector<std::string> available_isas();

/// Merges two partial results over disjoint keys, out_a and out_b: [dim], with their log-sum-exps. The result
/// replaces out_a and lse_a.
void merge_attention(float* out_a, float& lse_a, const float* out_b, float lse_b, int dim);

}  // namespace fathom
