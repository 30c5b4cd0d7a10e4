// The functions of a net over Fathom's own kernels, with their gradients by hand: each reads and writes its rows
// once, where autograd's plain operations take many passes over memory.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <memory>

#include "base/thread_pool.h"
#include "kernels/matmul.h"
#include "train/fused_attention.h"
#include "train/fused_products.h"
#include "train/layer_ops.h"

namespace fathom {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

constexpr int64_t kRowsOfTask = 32;      // rows of a norm or activation that a thread takes at once
constexpr int64_t kRowsOfEntropy = 256;  // rows whose logits are made at once: 8 MB at 8,192 pieces
constexpr int64_t kPartsOfSum = 16;      // partial sums of a norm's gradient; fixed, so that threads do not matter

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

/// x with its pairs turned by the angles of their rows, forth or back.
at::Tensor turned(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  at::Tensor y = x.contiguous().clone();
  const int64_t length = y.size(1), heads = y.size(2), dim = y.size(3), pairs = cos.size(1);
  for_rows(y.size(0) * length, [&](int64_t row) {
    const int64_t place = row % length;
    for (int64_t head = 0; head < heads; ++head) {
      kernels().rotate_pairs(floats(y) + (row * heads + head) * dim, floats(cos) + place * pairs,
                             floats(sin) + place * pairs, pairs);
    }
  });
  return y;
}

class Rotary : public Function<Rotary> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& cos,
                            const at::Tensor& sin) {
    context->save_for_backward({cos, sin});
    return turned(x, cos, sin);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    return {turned(gradients[0], saved[0], -saved[1]), at::Tensor(), at::Tensor()};
  }
};

class Swiglu : public Function<Swiglu> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& gate, const at::Tensor& up) {
    const at::Tensor g = gate.contiguous(), u = up.contiguous();
    at::Tensor y = g.clone();
    const int64_t width = y.size(-1);
    for_rows(y.numel() / width,
             [&](int64_t row) { kernels().swiglu(floats(y) + row * width, floats(u) + row * width, width); });
    context->save_for_backward({g, u});
    return y;
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &gate = saved[0], &up = saved[1], dy = gradients[0].contiguous();
    at::Tensor dgate = at::empty_like(gate), dup = at::empty_like(up);
    const int64_t width = gate.size(-1);
    for_rows(gate.numel() / width, [&](int64_t row) {
      const int64_t at = row * width;
      kernels().swiglu_backward(floats(gate) + at, floats(up) + at, floats(dy) + at, width, floats(dgate) + at,
                                floats(dup) + at);
    });
    return {dgate, dup};
  }
};

class Linear : public Function<Linear> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& w) {
    const at::Tensor rows = x.contiguous();
    context->save_for_backward({rows, w});
    std::vector<int64_t> shape = rows.sizes().vec();
    shape.back() = w.size(0);
    return product(rows.flatten(0, -2), w).view(shape);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor x = saved[0].flatten(0, -2), dy = gradients[0].contiguous().flatten(0, -2);
    // dx = dy·W, dW = dyᵀ·x: as products with a transposed right side
    const at::Tensor dx = product(dy, transposed(saved[1])).view(saved[0].sizes());
    return {dx, product(transposed(dy), transposed(x))};
  }
};

class Attention : public Function<Attention> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            double scale, int64_t window) {
    const FusedAttention attention(q.contiguous(), k.contiguous(), v.contiguous(), scale, window);
    context->save_for_backward({attention.q, attention.k, attention.v});
    context->saved_data["scale"] = scale;
    context->saved_data["window"] = window;
    return attention.forward();
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const FusedAttention attention(saved[0], saved[1], saved[2], context->saved_data["scale"].toDouble(),
                                   context->saved_data["window"].toInt());
    const FusedAttention::Gradients g = attention.backward(gradients[0].contiguous());
    return {g.q, g.k, g.v, at::Tensor(), at::Tensor()};
  }
};

/// The gradients are made with the loss: the logits, far larger than all else, are never kept.
class CrossEntropy : public Function<CrossEntropy> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& output,
                            const at::Tensor& targets, const at::Tensor& weights) {
    const at::Tensor rows = x.contiguous(), across = transposed(output);
    at::Tensor dx = at::empty_like(rows), doutput = at::zeros_like(output);
    double loss = 0;
    for (int64_t begin = 0; begin < rows.size(0); begin += kRowsOfEntropy) {
      const int64_t count = std::min(kRowsOfEntropy, rows.size(0) - begin);
      const at::Tensor some = rows.narrow(0, begin, count);
      const at::Tensor logits = product(some, output);
      loss += to_gradient(logits, targets.narrow(0, begin, count), weights.narrow(0, begin, count));
      dx.narrow(0, begin, count).copy_(product(logits, across));
      doutput.add_(product(transposed(logits), transposed(some)));
    }
    context->save_for_backward({dx, doutput});
    return at::full({}, loss, at::kFloat);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    return {saved[0] * gradients[0], saved[1] * gradients[0], at::Tensor(), at::Tensor()};
  }

 private:
  /// Makes logits the gradient of the loss by them; returns the loss.
  static double to_gradient(const at::Tensor& logits, const at::Tensor& targets, const at::Tensor& weights) {
    const int64_t rows = logits.size(0), vocabulary = logits.size(1);
    std::vector<double> losses(rows);
    for_rows(rows, [&](int64_t row) {
      float* x = floats(logits) + row * vocabulary;
      const int64_t target = targets.data_ptr<int64_t>()[row];
      const float weight = floats(weights)[row], logit = x[target];
      losses[row] = static_cast<double>(weight) * (kernels().softmax(x, vocabulary) - logit);
      x[target] -= 1;
      for (int64_t i = 0; i < vocabulary; ++i) x[i] *= weight;
    });
    double loss = 0;
    for (const double part : losses) loss += part;
    return loss;
  }
};

at::Tensor fused_linear(const at::Tensor& x, const at::Tensor& w) {
  return is_plain_float(x) ? Linear::apply(x, w) : plain_ops().linear(x, w);
}
at::Tensor fused_rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, at::ScalarType type) {
  return is_plain_float(x) ? RmsNorm::apply(x, weight, eps).to(type) : plain_ops().rms_norm(x, weight, eps, type);
}
at::Tensor fused_rotary(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  return is_plain_float(x) ? Rotary::apply(x, cos, sin) : plain_ops().rotary(x, cos, sin);
}
at::Tensor fused_swiglu(const at::Tensor& gate, const at::Tensor& up) {
  return is_plain_float(gate) ? Swiglu::apply(gate, up) : plain_ops().swiglu(gate, up);
}
at::Tensor fused_attention(const AttentionCall& call) {
  if (!is_plain_float(call.q)) return plain_ops().attention(call);
  return Attention::apply(call.q, call.k, call.v, call.scale, call.window);
}
at::Tensor fused_cross_entropy(const at::Tensor& x, const at::Tensor& output, const at::Tensor& targets,
                               const at::Tensor& weights) {
  if (!is_plain_float(x)) return plain_ops().cross_entropy(x, output, targets, weights);
  return CrossEntropy::apply(x, output, targets.contiguous(), weights.contiguous());
}

}  // namespace

const LayerOps& fused_ops() {
  static const LayerOps ops{fused_linear, fused_rms_norm,  fused_rotary,
                            fused_swiglu, fused_attention, fused_cross_entropy};
  return ops;
}

}  // namespace fathom
