#pragma once

#include <ATen/core/Tensor.h>

#include <array>

#include "attend/landmarks.h"
#include "train/factors.h"

namespace fathom::train {

/// Grouped-query attention of each sequence to itself.
struct AttentionCall {
  at::Tensor q;        // [sequences, length, heads, key_dim], rotated
  at::Tensor k;        // [sequences, length, kv_heads, key_dim], rotated; query head h uses h·kv_heads/heads
  at::Tensor v;        // [sequences, length, kv_heads, value_dim]
  double scale = 1;    // of q·k
  int64_t window = 0;  // each row sees this many newest tokens, itself included; 0 = all
  // Softplus attention: of q and k of length 1 and scale ln(key_dim); row i multiplies its scores by ln i.
  bool softplus = false;
  double softplus_power = 0;  // of the re-weighting; 0 = none
  Landmarks landmarks{};
};

/// The differentiable functions that a net is made of, so that each can be replaced and compared with the plain
/// one. "Compute type": float32 or bfloat16; all reduce in float32.
struct LayerOps {
  /// x: [..., cols], w: [rows, cols], both of the compute type; returns x·wᵀ of it.
  at::Tensor (*linear)(const at::Tensor& x, const at::Tensor& w);
  /// The same for three matrices of as many columns.
  std::array<at::Tensor, 3> (*linears)(const at::Tensor& x, const std::array<at::Tensor, 3>& w);
  /// residual + x·wᵀ; residual: f32, as the result is.
  at::Tensor (*add_linear)(const at::Tensor& residual, const at::Tensor& x, const at::Tensor& w);
  /// x: [..., width] f32, weight: [width] f32; returns x / √(mean(x²) + eps) ⊙ weight as `type`.
  at::Tensor (*rms_norm)(const at::Tensor& x, const at::Tensor& weight, double eps, at::ScalarType type);
  /// Turns the pairs (2i, 2i+1) by the angles of their row. x: [sequences, length, heads, dim]; cos, sin:
  /// [length, pairs] f32, pairs ≤ dim/2; dimensions beyond stay. Returns x's type.
  at::Tensor (*rotary)(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);
  /// silu(x·gateᵀ) ⊙ (x·upᵀ), all of the compute type. x: [..., cols], gate, up: [rows, cols].
  at::Tensor (*swiglu)(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& up);
  /// Causal; returns [sequences, length, heads, value_dim] of q's type.
  at::Tensor (*attention)(const AttentionCall& call);
  /// Σ weight·(−ln p(target)) where p = softmax(output·x), a scalar f32. x: [rows, width], output: [vocabulary,
  /// width]; targets: [rows] int64; weights: [rows] f32, not differentiated.
  at::Tensor (*cross_entropy)(const at::Tensor& x, const at::Tensor& output, const at::Tensor& targets,
                              const at::Tensor& weights);
  /// The compute type is float32 always: products round by themselves, if at all.
  bool floats_only = false;
};

/// What the equations say, by autograd; memory grows with length².
const LayerOps& plain_ops();

/// The same by libtorch's operations that suit an accelerator best: attention in one of them, where this libtorch
/// has it (2.1 or newer) and neither a window nor landmarks are asked for.
const LayerOps& device_ops();

/// The same over Fathom's kernels, with gradients by hand, for f32 on the CPU; what is not is left to plain_ops().
/// The machine must have products of such factors.
const LayerOps& fused_ops(Factors factors = Factors::kF32);

}  // namespace fathom::train
