#include <ATen/ATen.h>
#include <torch/version.h>

#include <limits>

#include "attend/forms/softplus_form.h"
#include "train/layer_ops.h"

namespace fathom::train {
namespace {

at::Tensor product(const at::Tensor& x, const at::Tensor& w) { return at::linear(x, w); }

std::array<at::Tensor, 3> linears(const at::Tensor& x, const std::array<at::Tensor, 3>& w) {
  return {at::linear(x, w[0]), at::linear(x, w[1]), at::linear(x, w[2])};
}

at::Tensor add_linear(const at::Tensor& residual, const at::Tensor& x, const at::Tensor& w) {
  return residual + at::linear(x, w);
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, at::ScalarType type) {
  return (x * at::rsqrt(x.square().mean(-1, true) + eps) * weight).to(type);
}

at::Tensor rotary(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const int64_t rotated = 2 * cos.size(1), rest = x.size(3) - rotated;
  const at::Tensor pairs = x.narrow(3, 0, rotated).to(at::kFloat).unflatten(3, {rotated / 2, 2});
  const at::Tensor a = pairs.select(4, 0), b = pairs.select(4, 1);  // [sequences, length, heads, pairs]
  const at::Tensor c = cos.unsqueeze(1), s = sin.unsqueeze(1);      // [length, 1, pairs]
  const at::Tensor out = at::stack({a * c - b * s, a * s + b * c}, 4).flatten(3).to(x.scalar_type());
  return rest == 0 ? out : at::cat({out, x.narrow(3, rotated, rest)}, 3);
}

at::Tensor swiglu(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& up) {
  return at::silu(at::linear(x, gate)) * at::linear(x, up);
}

/// Returns [length, length], true for keys that a row must not attend to.
at::Tensor masked_keys(int64_t length, int64_t window, at::Device device) {
  const at::Tensor all = at::ones({length, length}, at::device(device).dtype(at::kBool));
  return window > 0 ? all.triu(1).logical_or(all.tril(-window)) : all.triu(1);
}

/// Returns x / Σ x of each row; a row of zeros stays zero.
at::Tensor divided_by_sum(const at::Tensor& x) {
  constexpr double kMin = 1e-20;  // smaller than every sum of softplus; its inverse is within float's range
  return x / x.sum(-1, true).clamp_min(kMin);
}

/// Returns the weights of softplus attention. scores: [..., length, length] f32, of unit vectors, times
/// ln(key_dim); masked: [length, length].
at::Tensor softplus_shares(const at::Tensor& scores, const at::Tensor& masked, double power) {
  const int64_t length = scores.size(-1);
  const at::Tensor tokens =
      at::arange(1, length + 1, scores.options()).unsqueeze(1);  // [length, 1] tokens up to each row
  const at::Tensor a = divided_by_sum(at::softplus(scores * tokens.log()).masked_fill(masked, 0));
  if (power == 0) return a;
  const at::Tensor offset = tokens.gt(SoftplusForm::kRowsWithoutOffset).to(at::kFloat);
  const at::Tensor above = at::relu(tokens * a - offset);
  // Division by the row's maximum keeps the power within float's range. A maximum below kMin is rounding error.
  constexpr double kMin = 1e-6;
  const at::Tensor largest = above.detach().amax(-1, true).clamp_min(kMin);
  return divided_by_sum((above / largest).pow(power));
}

/// Changes scores so that one softmax gives the grouped softmax of landmark attention: adds to the scores of a past
/// block the score of its landmark minus the log-sum-exp of its tokens. The weights of the block's tokens then sum
/// to the landmark's weight, and landmarks themselves have weight 0. scores: [..., length, length].
at::Tensor grouped_by_landmarks(const at::Tensor& scores, const Landmarks& landmarks) {
  const int64_t length = scores.size(-1), block = landmarks.block(), blocks = (length + block - 1) / block;
  const at::Tensor by_block =
      at::constant_pad_nd(scores, {0, blocks * block - length}).unflatten(-1, {blocks, block});
  const at::Tensor landmark = by_block.select(-1, landmarks.tokens);
  const at::Tensor more =
      landmark - by_block.narrow(-1, 0, landmarks.tokens).logsumexp(-1);  // [..., length, blocks]
  const at::Tensor tokens = at::arange(length, scores.options().dtype(at::kLong));
  const at::Tensor own = tokens.floor_divide(block);
  const at::Tensor past = at::arange(blocks, own.options()).unsqueeze(0) < own.unsqueeze(1);  // [length, blocks]
  const at::Tensor shift =
      more.masked_fill(past.logical_not(), 0).repeat_interleave(block, -1).narrow(-1, 0, length);
  return (scores + shift)
      .masked_fill(tokens.remainder(block) == landmarks.tokens, -std::numeric_limits<double>::infinity());
}

at::Tensor attention(const AttentionCall& call) {
  const int64_t kv_heads = call.k.size(2), group = call.q.size(2) / kv_heads;
  const at::Tensor q = call.q.unflatten(2, {kv_heads, group}).permute({0, 2, 3, 1, 4});  // [s, kv, group, l, dim]
  const at::Tensor k = call.k.permute({0, 2, 3, 1}).unsqueeze(2);                        // [s, kv, 1, dim, l]
  const at::Tensor v = call.v.permute({0, 2, 1, 3}).unsqueeze(2);                        // [s, kv, 1, l, dim]
  at::Tensor scores = at::matmul(q, k).to(at::kFloat) * call.scale;
  if (call.landmarks) scores = grouped_by_landmarks(scores, call.landmarks);
  const at::Tensor masked = masked_keys(call.q.size(1), call.window, q.device());
  const at::Tensor shares =
      call.softplus ? softplus_shares(scores, masked, call.softplus_power)
                    : at::softmax(scores.masked_fill(masked, -std::numeric_limits<double>::infinity()), -1);
  return at::matmul(shares.to(v.scalar_type()), v).permute({0, 3, 1, 2, 4}).flatten(2, 3);
}

/// Attention by the fused operation of libtorch 2.1 or newer, which does not store scores. It needs as many
/// key/value heads as query heads, so these are repeated.
at::Tensor device_attention(const AttentionCall& call) {
#if TORCH_VERSION_MAJOR * 100 + TORCH_VERSION_MINOR >= 201
  if (call.window == 0 && !call.softplus && !call.landmarks) {
    const int64_t group = call.q.size(2) / call.k.size(2);
    const auto heads_first = [](const at::Tensor& x) { return x.transpose(1, 2); };
    const auto repeated = [&](const at::Tensor& x) { return heads_first(x).repeat_interleave(group, 1); };
    return at::scaled_dot_product_attention(heads_first(call.q), repeated(call.k), repeated(call.v), {}, 0.0, true,
                                            call.scale)
        .transpose(1, 2);
  }
#endif
  return attention(call);
}

at::Tensor cross_entropy(const at::Tensor& x, const at::Tensor& output, const at::Tensor& targets,
                         const at::Tensor& weights) {
  const at::Tensor log_shares = at::log_softmax(at::linear(x, output).to(at::kFloat), -1);
  return -(log_shares.gather(1, targets.unsqueeze(1)).squeeze(1) * weights).sum();
}

at::Tensor soft_cross_entropy(const at::Tensor& x, const at::Tensor& output, const at::Tensor& shares,
                              const at::Tensor& share_rows, const at::Tensor& weights) {
  const at::Tensor log_shares = at::log_softmax(at::linear(x, output).to(at::kFloat), -1);
  return -((shares.index_select(0, share_rows) * log_shares).sum(-1) * weights).sum();
}

}  // namespace

const LayerOps& plain_ops() {
  static const LayerOps ops{.linear = product,
                            .linears = linears,
                            .add_linear = add_linear,
                            .rms_norm = rms_norm,
                            .rotary = rotary,
                            .swiglu = swiglu,
                            .attention = attention,
                            .cross_entropy = cross_entropy,
                            .soft_cross_entropy = soft_cross_entropy};
  return ops;
}

const LayerOps& device_ops() {
  static const LayerOps ops = [] {
    LayerOps with_fused_attention = plain_ops();
    with_fused_attention.attention = device_attention;
    return with_fused_attention;
  }();
  return ops;
}

}  // namespace fathom::train
