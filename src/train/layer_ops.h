#pragma once

#include <ATen/core/Tensor.h>

#include <array>

#include "attend/landmarks.h"
#include "train/factors.h"

namespace fathom::train {

/// The arguments of grouped-query self-attention.
struct AttentionCall {
  at::Tensor q;        // [sequences, length, heads, key_dim], rotated
  at::Tensor k;        // [sequences, length, kv_heads, key_dim], rotated; query head h uses h·kv_heads/heads
  at::Tensor v;        // [sequences, length, kv_heads, value_dim]
  double scale = 1;    // multiplies q·k
  int64_t window = 0;  // number of newest tokens that a row attends to, itself included; 0 = all
  // Softplus attention: q and k have length 1, scale is ln(key_dim), and row i multiplies its scores by ln i.
  bool softplus = false;
  double softplus_power = 0;  // power of the re-weighting; 0 = none
  Landmarks landmarks{};
};

/// The differentiable functions of a net. Each can be replaced and compared with the one in plain_ops(). The
/// compute type is float32 or bfloat16. All functions sum in float32.
struct LayerOps {
  /// Returns x·wᵀ. x: [..., cols], w: [rows, cols], all of the compute type.
  at::Tensor (*linear)(const at::Tensor& x, const at::Tensor& w);
  /// Returns x·wᵀ for three matrices with the same number of columns.
  std::array<at::Tensor, 3> (*linears)(const at::Tensor& x, const std::array<at::Tensor, 3>& w);
  /// Returns residual + x·wᵀ in f32. residual: f32.
  at::Tensor (*add_linear)(const at::Tensor& residual, const at::Tensor& x, const at::Tensor& w);
  /// Returns x / √(mean(x²) + eps) ⊙ weight as `type`. x: [..., width] f32, weight: [width] f32.
  at::Tensor (*rms_norm)(const at::Tensor& x, const at::Tensor& weight, double eps, at::ScalarType type);
  /// Returns x with pairs (2i, 2i+1) rotated by the angles of their row, in x's type. x: [sequences, length, heads,
  /// dim]; cos, sin: [length, pairs] f32, pairs ≤ dim/2; further dimensions are copied.
  at::Tensor (*rotary)(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);
  /// Returns silu(x·gateᵀ) ⊙ (x·upᵀ). x: [..., cols], gate, up: [rows, cols], all of the compute type.
  at::Tensor (*swiglu)(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& up);
  /// Returns causal attention, [sequences, length, heads, value_dim] of q's type.
  at::Tensor (*attention)(const AttentionCall& call);
  /// Returns Σ weight·(−ln p(target)) with p = softmax(output·x), a scalar f32. x: [rows, width], output:
  /// [vocabulary, width]; targets: [rows] int64; weights: [rows] f32, not differentiated.
  at::Tensor (*cross_entropy)(const at::Tensor& x, const at::Tensor& output, const at::Tensor& targets,
                              const at::Tensor& weights);
  /// Returns Σ weight·(−Σ share·ln p) with p = softmax(output·x), a scalar f32: the cross-entropy to the shares of
  /// another model. x: [rows, width]; shares: [any, vocabulary] f32, each row sums to 1; share_rows: [rows] int64,
  /// the row of shares of each row of x; weights: [rows] f32. Shares and weights are not differentiated.
  at::Tensor (*soft_cross_entropy)(const at::Tensor& x, const at::Tensor& output, const at::Tensor& shares,
                                   const at::Tensor& share_rows, const at::Tensor& weights);
  /// True if the compute type is always float32. Products may then round their factors internally.
  bool floats_only = false;
};

/// Returns the plain functions: libtorch's operations with autograd. Memory grows with length².
const LayerOps& plain_ops();

/// Returns functions for an accelerator: libtorch's operations, with its fused attention in libtorch 2.1 or newer
/// unless a window, softplus or landmarks are used.
const LayerOps& device_ops();

/// Returns functions that use Fathom's kernels and hand-written gradients, for f32 on the CPU. Other tensors,
/// softplus attention and landmarks use plain_ops(). Requires has_products_of(factors).
const LayerOps& fused_ops(Factors factors = Factors::kF32);

}  // namespace fathom::train
