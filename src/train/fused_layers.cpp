// The functions of LayerOps over Fathom's kernels, with hand-written gradients. Each function reads and writes its
// rows once; autograd's operations would take many passes over memory.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <vector>

#include "train/fused_attention.h"
#include "train/fused_entropy.h"
#include "train/fused_products.h"
#include "train/layer_ops.h"

namespace fathom::train {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

constexpr int64_t kPartsOfSum = 16;  // partial sums of a norm's gradient; fixed, so threads do not change results

bool is_plain_float(const at::Tensor& x) { return x.scalar_type() == at::kFloat && x.device().is_cpu(); }

class RmsNorm : public Function<RmsNorm> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight, double eps) {
    const at::Tensor rows = x.contiguous();
    at::Tensor y = at::empty_like(rows);
    const int64_t width = rows.size(-1);
    for_rows(rows.numel() / width, [&](int64_t row) {
      kernels().rms_norm(floats(rows) + row * width, floats(weight), static_cast<float>(eps), width,
                         floats(y) + row * width);
    });
    context->save_for_backward({rows, weight});
    context->saved_data["eps"] = eps;
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], dy = gradients[0].contiguous();
    const auto eps = static_cast<float>(context->saved_data["eps"].toDouble());
    const int64_t width = x.size(-1), rows = x.numel() / width;
    at::Tensor dx = at::empty_like(x), parts = at::zeros({kPartsOfSum, width});
    training_pool().parallel_for(kPartsOfSum, [&](size_t part, int) {
      const int64_t begin = rows * static_cast<int64_t>(part) / kPartsOfSum;
      const int64_t end = rows * static_cast<int64_t>(part + 1) / kPartsOfSum;
      for (int64_t row = begin; row < end; ++row) {
        kernels().rms_norm_backward(floats(x) + row * width, floats(weight), floats(dy) + row * width, eps, width,
                                    floats(dx) + row * width, floats(parts) + static_cast<int64_t>(part) * width);
      }
    });
    return {dx, parts.sum(0), at::Tensor()};
  }
};

/// Returns x with its pairs rotated by the angles of their rows; a negated sine gives the inverse rotation.
at::Tensor rotated(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const at::Tensor from = x.contiguous();
  at::Tensor y = at::empty_like(from);
  const int64_t length = y.size(1), heads = y.size(2), dim = y.size(3), pairs = cos.size(1);
  for_rows(y.size(0) * length, [&](int64_t row) {
    const int64_t position = row % length;
    std::copy_n(floats(from) + row * heads * dim, heads * dim, floats(y) + row * heads * dim);
    for (int64_t head = 0; head < heads; ++head) {
      kernels().rotate_pairs(floats(y) + (row * heads + head) * dim, floats(cos) + position * pairs,
                             floats(sin) + position * pairs, pairs);
    }
  });
  return y;
}

class RotaryFunction : public Function<RotaryFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& cos,
                            const at::Tensor& sin) {
    context->save_for_backward({cos, sin});
    return rotated(x, cos, sin);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    return {rotated(gradients[0], saved[0], -saved[1]), at::Tensor(), at::Tensor()};
  }
};

/// Returns x as a matrix [rows, last dimension].
at::Tensor as_matrix(const at::Tensor& x) { return x.contiguous().flatten(0, -2); }

/// Returns the shape of x with another last dimension.
std::vector<int64_t> with_width(const at::Tensor& x, int64_t width) {
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = width;
  return shape;
}

/// Computes silu(x·gateᵀ) ⊙ (x·upᵀ). The element-wise part runs while the rows of the two products are in the
/// cache.
template <Factors kFactors>
class Swiglu : public Function<Swiglu<kFactors>> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input, const at::Tensor& gate,
                            const at::Tensor& up) {
    const at::Tensor x = as_matrix(input);
    const int64_t rows = x.size(0), width = gate.size(0);
    const at::Tensor g = at::empty({rows, width}), u = at::empty_like(g), y = at::empty_like(g);
    const FloatProduct to_gate = product_of(x, gate, g), to_up = product_of(x, up, u);
    for_parts(rows, kRowsOfPart, [&](int64_t begin, int64_t end) {
      multiply(kFactors, rows_of(to_gate, begin, end));
      multiply(kFactors, rows_of(to_up, begin, end));
      const int64_t at = begin * width, count = (end - begin) * width;
      std::copy_n(floats(g) + at, count, floats(y) + at);
      kernels().swiglu(floats(y) + at, floats(u) + at, count);
    });
    context->save_for_backward({input, gate, up, g, u});
    return y.view(with_width(input, width));
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor x = as_matrix(saved[0]), &gate = saved[1], &up = saved[2], &g = saved[3], &u = saved[4];
    const at::Tensor dy = as_matrix(gradients[0]), dg = at::empty_like(g), du = at::empty_like(u);
    const at::Tensor dx = at::empty_like(x), dgate = at::empty_like(gate), dup = at::empty_like(up);
    const FloatProduct from_gate = gradient_of_rows(dg, gate, dx), from_up = gradient_of_rows(du, up, dx, true);
    const int64_t width = gate.size(0);
    for_parts(x.size(0), kRowsOfPart, [&](int64_t begin, int64_t end) {
      const int64_t at = begin * width;
      kernels().swiglu_backward(floats(g) + at, floats(u) + at, floats(dy) + at, (end - begin) * width,
                                floats(dg) + at, floats(du) + at);
      multiply(kFactors, rows_of(from_gate, begin, end));
      multiply(kFactors, rows_of(from_up, begin, end));
    });
    if (!context->needs_input_grad(1)) return {dx.view(saved[0].sizes()), at::Tensor(), at::Tensor()};
    multiply_all(kFactors, {{gradient_of_weights(dg, x, dgate), gradient_of_weights(du, x, dup)}});
    return {dx.view(saved[0].sizes()), dgate, dup};
  }
};

/// Limits libtorch to one thread. It has little work beside hand-written layers, and its idle threads spin, which
/// slows down those of training_pool().
void limit_libtorch_threads() {
  training_pool();  // created with the current number of threads
  if (at::get_num_threads() > 1) at::set_num_threads(1);
}

/// Computes x·wᵀ for several matrices w.
template <Factors kFactors>
class Linears : public Function<Linears<kFactors>> {
 public:
  static variable_list forward(AutogradContext* context, const at::Tensor& input, const at::TensorList weights) {
    limit_libtorch_threads();
    const at::Tensor x = as_matrix(input);
    variable_list saved{input}, results;
    std::vector<FloatProduct> products;
    for (const at::Tensor& w : weights) {
      saved.push_back(w);
      results.push_back(at::empty(with_width(input, w.size(0))));
      products.push_back(product_of(x, w, results.back()));
    }
    multiply_all(kFactors, products);
    context->save_for_backward(saved);
    return results;
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor x = as_matrix(saved[0]), dx = at::empty_like(x);
    std::vector<FloatProduct> to_rows, to_weights;
    variable_list dy, results{dx.view(saved[0].sizes())};
    for (size_t i = 0; i < gradients.size(); ++i) {
      dy.push_back(as_matrix(gradients[i]));
      to_rows.push_back(gradient_of_rows(dy[i], saved[i + 1], dx, i > 0));
      results.push_back(context->needs_input_grad(i + 1) ? at::empty_like(saved[i + 1]) : at::Tensor());
      if (results.back().defined()) to_weights.push_back(gradient_of_weights(dy[i], x, results.back()));
    }
    if (context->needs_input_grad(0))
      for_parts(x.size(0), kRowsOfPart, [&](int64_t begin, int64_t end) {
        for (const FloatProduct& product : to_rows) multiply(kFactors, rows_of(product, begin, end));
      });
    multiply_all(kFactors, to_weights);
    return results;
  }
};

/// Computes residual + x·wᵀ.
template <Factors kFactors>
class AddLinear : public Function<AddLinear<kFactors>> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& residual, const at::Tensor& input,
                            const at::Tensor& w) {
    const at::Tensor x = as_matrix(input), from = residual.contiguous();
    at::Tensor y = at::empty_like(from);
    const FloatProduct product = product_of(x, w, y, true);
    const int64_t width = w.size(0);
    for_parts(x.size(0), kRowsOfPart, [&](int64_t begin, int64_t end) {
      std::copy_n(floats(from) + begin * width, (end - begin) * width, floats(y) + begin * width);
      multiply(kFactors, rows_of(product, begin, end));
    });
    context->save_for_backward({input, w});
    return y;
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor x = as_matrix(saved[0]), dy = as_matrix(gradients[0]);
    const at::Tensor dx = at::empty_like(x), dw = at::empty_like(saved[1]);
    multiply_all(kFactors, {{gradient_of_rows(dy, saved[1], dx)}});
    if (!context->needs_input_grad(2)) return {gradients[0], dx.view(saved[0].sizes()), at::Tensor()};
    multiply_all(kFactors, {{gradient_of_weights(dy, x, dw)}});
    return {gradients[0], dx.view(saved[0].sizes()), dw};
  }
};

template <Factors kFactors>
class AttentionFunction : public Function<AttentionFunction<kFactors>> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            double scale, int64_t window) {
    const FusedAttention attention(q.contiguous(), k.contiguous(), v.contiguous(), scale, window, kFactors);
    const FusedAttention::Result result = attention.forward();
    context->save_for_backward({attention.q, attention.k, attention.v, result.out, result.lse});
    context->saved_data["scale"] = scale;
    context->saved_data["window"] = window;
    return result.out;
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const FusedAttention attention(saved[0], saved[1], saved[2], context->saved_data["scale"].toDouble(),
                                   context->saved_data["window"].toInt(), kFactors);
    const FusedAttention::Gradients g = attention.backward({saved[3], saved[4]}, gradients[0].contiguous());
    return {g.q, g.k, g.v, at::Tensor(), at::Tensor()};
  }
};

template <Factors kFactors>
at::Tensor fused_linear(const at::Tensor& x, const at::Tensor& w) {
  return is_plain_float(x) ? Linears<kFactors>::apply(x, at::TensorList(w))[0] : plain_ops().linear(x, w);
}
template <Factors kFactors>
std::array<at::Tensor, 3> fused_linears(const at::Tensor& x, const std::array<at::Tensor, 3>& w) {
  if (!is_plain_float(x)) return plain_ops().linears(x, w);
  const variable_list y = Linears<kFactors>::apply(x, at::TensorList(w));
  return {y[0], y[1], y[2]};
}
template <Factors kFactors>
at::Tensor fused_add_linear(const at::Tensor& residual, const at::Tensor& x, const at::Tensor& w) {
  return is_plain_float(x) ? AddLinear<kFactors>::apply(residual, x, w) : plain_ops().add_linear(residual, x, w);
}
at::Tensor fused_rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, at::ScalarType type) {
  return is_plain_float(x) ? RmsNorm::apply(x, weight, eps).to(type) : plain_ops().rms_norm(x, weight, eps, type);
}
at::Tensor fused_rotary(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  return is_plain_float(x) ? RotaryFunction::apply(x, cos, sin) : plain_ops().rotary(x, cos, sin);
}
template <Factors kFactors>
at::Tensor fused_swiglu(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& up) {
  return is_plain_float(x) ? Swiglu<kFactors>::apply(x, gate, up) : plain_ops().swiglu(x, gate, up);
}
template <Factors kFactors>
at::Tensor fused_attention(const AttentionCall& call) {
  if (!is_plain_float(call.q) || call.softplus || call.landmarks) return plain_ops().attention(call);
  return AttentionFunction<kFactors>::apply(call.q, call.k, call.v, call.scale, call.window);
}
template <Factors kFactors>
at::Tensor cross_entropy(const at::Tensor& x, const at::Tensor& output, const at::Tensor& targets,
                         const at::Tensor& weights) {
  if (!is_plain_float(x)) return plain_ops().cross_entropy(x, output, targets, weights);
  return fused_cross_entropy(kFactors, x, output, targets, weights);
}
template <Factors kFactors>
at::Tensor soft_cross_entropy(const at::Tensor& x, const at::Tensor& output, const at::Tensor& shares,
                              const at::Tensor& share_rows, const at::Tensor& weights) {
  if (!is_plain_float(x)) return plain_ops().soft_cross_entropy(x, output, shares, share_rows, weights);
  return fused_soft_cross_entropy(kFactors, x, output, shares, share_rows, weights);
}

template <Factors kFactors>
constexpr LayerOps kFusedOps{.linear = fused_linear<kFactors>,
                             .linears = fused_linears<kFactors>,
                             .add_linear = fused_add_linear<kFactors>,
                             .rms_norm = fused_rms_norm,
                             .rotary = fused_rotary,
                             .swiglu = fused_swiglu<kFactors>,
                             .attention = fused_attention<kFactors>,
                             .cross_entropy = cross_entropy<kFactors>,
                             .soft_cross_entropy = soft_cross_entropy<kFactors>,
                             .floats_only = true};

}  // namespace

const LayerOps& fused_ops(Factors factors) {
  return factors == Factors::kBF16 ? kFusedOps<Factors::kBF16> : kFusedOps<Factors::kF32>;
}

}  // namespace fathom::train
