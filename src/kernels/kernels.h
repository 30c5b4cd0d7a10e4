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

/// Activation rows are padded with zeros to a multiple of this many columns: the largest weight block.
inline constexpr int64_t kColumnPad = 256;
inline int64_t padded_columns(int64_t cols) { return (cols + kColumnPad - 1) / kColumnPad * kColumnPad; }

/// Up to this many rows of activations matvec is the faster product: they share the unpacking of each row of
/// weights. Beyond, panels pay.
inline constexpr int64_t kMatvecRows = 8;

/// Tiles of activations are this many rows by 32 columns; missing rows and columns are zero.
inline constexpr int64_t kTileTokens = 16;
inline int64_t tile_columns(int64_t cols) { return (cols + 31) / 32 * 32; }
/// Elements of one form of the tiles of so many rows.
inline int64_t tile_elements(int64_t rows, int64_t cols) {
  return (rows + kTileTokens - 1) / kTileTokens * kTileTokens * tile_columns(cols);
}

/// Where the 8-bit activation of a column lies in its row for kernels with vectors of 64 bytes
/// (Kernels::interleaved_activations): of each 256, eight of every group of 32 lie side by side, then the next eight.
inline int64_t interleaved_column(int64_t column) {
  return column / 256 * 256 + column % 32 / 8 * 64 + column % 256 / 32 * 8 + column % 8;
}

/// Activation rows as a product reads them. Float weights use `f32`; quantised weights use 8-bit values with one
/// scale per 32 columns. Scales and sums lie at a granularity of 16, so that weight types with groups of 16 and of
/// 32 read them alike. Matmuls on matrix tiles (Kernels::pack_activations) use `tiles`, and for float weights
/// `tiles_low` too.
struct ActivationRows {
  int64_t rows = 0;
  int64_t cols = 0;
  const float* f32 = nullptr;       // [rows, cols]
  const int8_t* q = nullptr;        // [rows, padded_columns(cols)], in the order of the table that reads them
  const float* scale = nullptr;     // [rows, padded_columns(cols) / 16]: each scale twice
  const float* sum = nullptr;       // [rows, padded_columns(cols) / 16]: scale · Σ q
  const float* pair_sum = nullptr;  // [rows, padded_columns(cols) / 32]: the same of both halves of a scale
  // bfloat16 [rows/16, columns/32, 16, 16, 2]: tiles of pairs of columns, tokens side by side
  const uint16_t* tiles = nullptr;
  const uint16_t* tiles_low = nullptr;  // what rounding to bfloat16 took off, rounded
};

/// Kernels::read takes multiples of this many bytes.
inline constexpr size_t kReadStep = 1024;

/// One page as the attention kernel reads it (layouts at PageFormat). Keys are rotated by their offset inside the
/// page.
struct PageRead {
  const std::byte* keys = nullptr;
  const std::byte* values = nullptr;    // with AttendTask::value_offset: the page's own keys, in the layout of keys
  const float* cos = nullptr;           // [rotary_dim/2] rotation by the page's place; null = no rotation
  const float* sin = nullptr;           // [rotary_dim/2]
  uint64_t mask = 0;                    // tokens that every row may see
  const uint64_t* row_masks = nullptr;  // null, or [rows]: a further restriction of each row
};

/// Attention of some query rows of one key/value head over some pages: out = Σ w v / Σ w, exact over the pages'
/// masks; the weights w are exp(q·k), which makes it softmax, unless `weights` says otherwise.
struct AttendTask {
  PageFormat format = PageFormat::kBF16;
  int key_dim = 0;
  int value_dim = 0;
  int rotary_dim = 0;  // first dimensions of a key that rotate
  // -1: pages have values of their own. Otherwise the value is dimensions [value_offset, value_offset + value_dim)
  // of the key, none of which rotates.
  int value_offset = -1;
  int rows = 0;   // query tokens
  int group = 0;  // query heads that share this key/value head
  const float* queries =
      nullptr;  // [rows, group, key_dim], rotated by their own positions and scaled; rotary pairs side by side
  const PageRead* pages = nullptr;
  int64_t page_count = 0;
  WeightFunction weights{};
  // Results; NaN, in all formats of pages, for a query with an element that is not finite.
  float* out = nullptr;   // [rows, group, value_dim]; 0 where nothing has weight. Null: only lse is wanted
  float* lse = nullptr;   // [rows, group] log Σ of the weights; −infinity where nothing has any
  float* mass = nullptr;  // null, or [rows, group, page_count]: the share of the weights that fell on each page
};

/// Products of queries with all 64 keys of a page as they lie.
struct ScoreTask {
  PageFormat format = PageFormat::kBF16;
  int key_dim = 0;
  const std::byte* keys = nullptr;
  const float* queries = nullptr;  // [queries_count, key_dim], rotated back by the page's place
  int queries_count = 0;
  float* scores = nullptr;  // [queries_count, 64]
};

/// Upper bounds of the products of queries with the keys of `columns` groups of each page: Σ over i of below·least
/// + above·largest of each group, where the numbers of a key lie between least and largest.
struct BoundTask {
  // Word i of a page is of group i % columns: bfloat16 of the least in its low half, of the largest in the high
  // one.
  const uint32_t* bounds = nullptr;  // [pages, n]
  int64_t pages = 1;
  // Of word i, for each query: its number where that is negative and where it is positive, otherwise 0.
  const float* below = nullptr;  // [count, n]
  const float* above = nullptr;  // [count, n]
  int64_t n = 0;                 // a multiple of kBoundWords
  int count = 0;                 // queries
  int columns = 1;               // 1, 2 or 4
  float* out = nullptr;  // [pages, columns]: the largest of the queries' bounds; −∞ where there are none
};
inline constexpr int64_t kBoundWords = 16;

/// y = a·b, or y += a·b, of floats that lie in rows with strides.
struct FloatProduct {
  int64_t rows = 0, cols = 0, depth = 0;
  const float* a = nullptr;  // [rows, depth], or rotated: [depth, rows]
  int64_t a_stride = 0;
  bool a_transposed = false;
  const float* b = nullptr;  // [depth, cols], or rotated: [cols, depth]
  int64_t b_stride = 0;
  bool b_transposed = false;
  float* y = nullptr;  // [rows, cols]
  int64_t y_stride = 0;
  bool add = false;  // to what y holds
};

/// Floats of scratch that Kernels::multiply and multiply_bf16 need.
inline constexpr int64_t kMultiplyScratch = 256 * (512 + 96);

/// The table of kernels of one instruction set. They neither allocate nor throw; results do not depend on threads.
struct Kernels {
  std::string isa;

  /// x: [cols] to 8 bits with one scale per 32; outputs as in ActivationRows, padding included.
  void (*quantize_activations)(const float* x, int64_t cols, int8_t* q, float* scale, float* sum, float* pair_sum);
  bool interleaved_activations = false;  // q lies as interleaved_column says, not column by column
  /// x: [rows ≤ 16, cols] to tiles as in ActivationRows, [columns/32, 16, 16, 2] each; low may be null. Null where
  /// matmul reads the other forms.
  void (*pack_activations)(const float* x, int64_t rows, int64_t cols, uint16_t* high, uint16_t* low) = nullptr;

  /// y[i, r] = W[r]·x[i] for r in [begin, end) and all rows i of x; y: [x.rows, y_stride]. One row of W after the
  /// other: for few rows of x.
  void (*matvec)(const Matrix& w, int64_t begin, int64_t end, const ActivationRows& x, float* y, int64_t y_stride);
  /// The same for many rows of x, by panels of W that are unpacked once; begin is a multiple of panel_rows.
  void (*matmul)(const Matrix& w, int64_t begin, int64_t end, const ActivationRows& x, float* y, int64_t y_stride);
  int64_t panel_rows;
  /// For training. scratch: [kMultiplyScratch], aligned to 64 bytes.
  void (*multiply)(const FloatProduct& product, float* scratch);
  /// The same of factors rounded to bfloat16 (to nearest, even; subnormal numbers count as 0) with sums of floats.
  /// Null where the processor has no instruction for it.
  void (*multiply_bf16)(const FloatProduct& product, float* scratch) = nullptr;

  /// scratch: [attend_scratch(key_dim, value_dim, rows · group)] floats, aligned to 64 bytes.
  void (*attend)(const AttendTask& task, float* scratch);
  /// For AttendTask::weights.
  WeightFunction::Apply softplus_weights;  // SoftplusConstants, SoftplusQuery
  WeightFunction::Apply capped_weights;    // CapConstants
  /// scratch: [64 · key_dim], aligned to 64 bytes.
  void (*score_page)(const ScoreTask& task, float* scratch);
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
  /// gate = gelu(gate) · up, the tanh form; [n].
  void (*geglu)(float* gate, const float* up, int64_t n);
  /// The gate of gpt-oss: with g = min(gate, 7) and u = up within ±7, gate = g · sigmoid(1.702 g) · (u + 1); [n].
  void (*swiglu_oai)(float* gate, const float* up, int64_t n);
  /// x = gelu(x), the tanh form; [n].
  void (*gelu)(float* x, int64_t n);
  /// x = x · sigmoid(x); [n].
  void (*silu)(float* x, int64_t n);
  /// x = max(x, 0)²; [n].
  void (*relu_squared)(float* x, int64_t n);
  /// x = ln(1 + eˣ), and x itself above 20; [n].
  void (*softplus)(float* x, int64_t n);
  /// x += y; [n].
  void (*add)(float* x, const float* y, int64_t n);
  /// x = softmax(x) in place; [n]; returns log Σ exp.
  float (*softmax)(float* x, int64_t n);

  // State-space layers (scan.h).
  void (*causal_conv)(const ConvTask& task);
  void (*selective_scan)(const SelectiveScan& task);
  /// One head of Mamba-2, row by row: same bits for any split of the rows.
  void (*ssd_scan)(const SsdHead& head);
  /// The same by matrix products of kSsdBlock rows, for many rows. Rounds differently: by about 1e-6 of the largest
  /// results. scratch: [ssd_scratch(width, state)], aligned to 64 bytes.
  void (*ssd_chunk)(const SsdHead& head, float* scratch);
  /// scratch: [ssd_scratch(0, state)], aligned to 64 bytes.
  void (*ssd_products)(const SsdProducts& task, float* scratch);
  /// The norm of Mamba-2 on one row: out = t / rms(t) · weight of each of `groups` groups of t = x · silu(z); all
  /// [groups, width]. out may be x.
  void (*gated_group_norm)(const float* x, const float* z, const float* weight, float eps, int64_t groups,
                           int64_t width, float* out);

  // Gradients, for training. dy: of the result; all [n].
  /// dx: of x, overwritten; dweight: of weight, added to.
  void (*rms_norm_backward)(const float* x, const float* weight, const float* dy, float eps, int64_t n, float* dx,
                            float* dweight);
  /// Of silu(gate) · up. dgate and dup are overwritten.
  void (*swiglu_backward)(const float* gate, const float* up, const float* dy, int64_t n, float* dgate, float* dup);
  /// x: scores with the log-sum-exp `lse`; dy: of their softmax p, with Σ dy·p = `along`. x becomes p, and dy the
  /// gradient of the scores.
  void (*softmax_backward)(float lse, float along, int64_t n, float* x, float* dy);
  /// x = exp(x − max x); sum = Σ x; returns the maximum. n ≥ 1.
  float (*exponentials)(float* x, int64_t n, float* sum);
  /// x = x · factor.
  void (*scale)(float* x, float factor, int64_t n);

  /// Does at least n multiply-adds in registers, with the instructions that matmul uses for quantised weights, and
  /// returns how many; `sink` receives their sum. For measuring what the machine can do.
  int64_t (*peak)(int64_t n, float* sink);
  /// The same with multiply-adds of floats, and with the product of bfloat16 numbers (null where there is none; it
  /// need not be the faster of the two).
  int64_t (*peak_f32)(int64_t n, float* sink);
  int64_t (*peak_bf16)(int64_t n, float* sink);
  /// The sum of all 32-bit words of bytes[n], wrapping around; n is a multiple of kReadStep. As fast as memory
  /// gives them; up to 1 KiB beyond the end may be prefetched.
  uint32_t (*read)(const std::byte* bytes, size_t n);
};

/// Floats of scratch that Kernels::attend needs for `queries` = rows · group.
size_t attend_scratch(int key_dim, int value_dim, int queries);

/// The best table for this machine, or the one FATHOM_ISA names. Chosen once; throws Error if FATHOM_ISA is unknown
/// or not available here. For programs and the default of Runtime: inference quant computes with the table that it
/// is passed.
const Kernels& kernels();
/// The table `isa` names: "reference", "avx2", "avx512" (with VNNI where the machine has it), "avx512f" (without),
/// "amx" (matrix tiles, and AVX-512 for the rest), "neon".
const Kernels& kernels(const std::string& isa);
/// The table of "amx" without looking whether the machine has tiles: for tests that emulate them. Nothing where it
/// lacks the AVX-512 that these kernels use besides.
std::optional<Kernels> amx_kernels();
/// What this machine can run, best last; the first is "reference".
std::vector<std::string> available_isas();

/// Joins two partial results over disjoint keys: out_a, out_b: [dim] with their log-sum-exps; the result replaces
/// out_a and lse_a.
void merge_attention(float* out_a, float& lse_a, const float* out_b, float lse_b, int dim);

}  // namespace fathom
