#include "train/fused_entropy.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <numeric>
#include <span>
#include <vector>

#include "base/aligned.h"
#include "train/fused_products.h"

namespace fathom::train {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

constexpr int64_t kRowsOfLogits = 132;  // rows of logits that one thread computes at once
constexpr int64_t kLogits = 1 << 22;    // maximum number of logits in memory: 16 MB
constexpr int64_t kLogitPadding = 16;   // floats; avoids cache conflicts between rows of logits

/// Replaces the logits of a row by the gradient of the row's loss. Returns the loss.
using RowLoss = std::function<double(int64_t row, float* logits)>;

/// The sum of the losses of rows and its gradients.
class Entropy {
 public:
  /// doutput undefined: the output matrix needs no gradient.
  Entropy(Factors factors, const at::Tensor& x, const at::Tensor& output, const at::Tensor& dx,
          const at::Tensor& doutput)
      : factors_(factors), x_(x), output_(output), dx_(dx), doutput_(doutput) {}

  /// Returns the loss of the rows with a weight other than 0.
  double sum(const at::Tensor& weights, const RowLoss& row_loss) {
    std::vector<int64_t> rows;
    for (int64_t row = 0; row < x_.size(0); ++row) {
      if (floats(weights)[row] != 0) rows.push_back(row);
    }
    const auto count = static_cast<int64_t>(rows.size()), rows_at_once = reserve(count);
    double loss = 0;
    for (int64_t begin = 0; begin < count; begin += rows_at_once) {
      loss += add(std::span(rows).subspan(begin, std::min(rows_at_once, count - begin)), row_loss);
    }
    return loss;
  }

 private:
  /// Returns how many rows are computed at once, and reserves memory for them.
  int64_t reserve(int64_t count) {
    const int64_t fit = std::max<int64_t>(1, kLogits / output_.size(0) / kRowsOfLogits) * kRowsOfLogits;
    const int64_t rows_at_once = std::min(fit, count);
    logits_.reserve(rows_at_once * (output_.size(0) + kLogitPadding));
    inputs_.reserve(rows_at_once * x_.size(1));
    return rows_at_once;
  }

  /// Returns the loss of the rows, sets their rows of dx and adds their part of doutput.
  double add(std::span<const int64_t> rows, const RowLoss& row_loss) {
    const auto count = static_cast<int64_t>(rows.size());
    const int64_t width = x_.size(1), vocabulary = output_.size(0), stride = vocabulary + kLogitPadding;
    std::vector<double> losses(rows.size());
    for_parts(count, kRowsOfLogits, [&](int64_t begin, int64_t end) {
      float *in = inputs_.data() + begin * width, *out = logits_.data() + begin * stride;
      for (int64_t i = begin; i < end; ++i) {
        std::copy_n(floats(x_) + rows[i] * width, width, inputs_.data() + i * width);
      }
      multiply(factors_,
               {end - begin, vocabulary, width, in, width, false, floats(output_), width, true, out, stride});
      for (int64_t i = begin; i < end; ++i) losses[i] = row_loss(rows[i], logits_.data() + i * stride);
      std::vector<float> back((end - begin) * width);
      multiply(factors_, {end - begin, width, vocabulary, out, stride, false, floats(output_), width, false,
                          back.data(), width});
      for (int64_t i = begin; i < end; ++i) {
        std::copy_n(back.data() + (i - begin) * width, width, floats(dx_) + rows[i] * width);
      }
    });
    if (doutput_.defined()) {
      multiply_all(factors_, {{{vocabulary, width, count, logits_.data(), stride, true, inputs_.data(), width,
                                false, floats(doutput_), width, true}}});
    }
    return std::accumulate(losses.begin(), losses.end(), 0.0);
  }

  Factors factors_;
  const at::Tensor &x_, &output_, &dx_, &doutput_;
  AlignedBuffer<float> logits_{}, inputs_{};  // [rows at once, vocabulary + padding], [rows at once, width]
};

/// Computes the loss and saves the gradients of x and, if it needs one, of output.
at::Tensor forward_entropy(AutogradContext* context, Factors factors, const at::Tensor& input,
                           const at::Tensor& output, const at::Tensor& weights, const RowLoss& row_loss) {
  const at::Tensor x = input.contiguous(), dx = at::zeros_like(x);
  const at::Tensor doutput = output.requires_grad() ? at::zeros_like(output) : at::Tensor();
  const double loss = Entropy(factors, x, output, dx, doutput).sum(weights, row_loss);
  context->save_for_backward({dx, doutput});
  return at::full({}, loss, at::kFloat);
}

/// Returns the saved gradients of x and output, multiplied by that of the loss.
std::pair<at::Tensor, at::Tensor> saved_gradients(AutogradContext* context, const variable_list& gradients) {
  const variable_list saved = context->get_saved_variables();
  const float by = gradients[0].item<float>();
  const auto scaled = [&](const at::Tensor& x) {
    if (!x.defined()) return at::Tensor();
    at::Tensor y = at::empty_like(x);
    const int64_t width = x.size(1);
    for_rows(x.size(0), [&](int64_t row) {
      const float* from = floats(x) + row * width;
      std::transform(from, from + width, floats(y) + row * width, [by](float v) { return v * by; });
    });
    return y;
  };
  return {scaled(saved[0]), scaled(saved[1])};
}

/// Returns Σ x·y, in kLanes partial sums.
float dot(const float* x, const float* y, int64_t n) {
  constexpr int64_t kLanes = 16;
  std::array<float, kLanes> sums{};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) sums[lane] += x[i + lane] * y[i + lane];
  }
  return std::inner_product(x + i, x + n, y + i, std::accumulate(sums.begin(), sums.end(), 0.0f));
}

Factors factors_of(int64_t number) { return static_cast<Factors>(number); }

class CrossEntropy : public Function<CrossEntropy> {
 public:
  static at::Tensor forward(AutogradContext* context, int64_t factors, const at::Tensor& x,
                            const at::Tensor& output, const at::Tensor& targets, const at::Tensor& weights) {
    const int64_t vocabulary = output.size(0);
    return forward_entropy(context, factors_of(factors), x, output, weights, [&](int64_t row, float* logits) {
      const int64_t target = targets.data_ptr<int64_t>()[row];
      const float weight = floats(weights)[row], logit = logits[target];
      float sum = 0;
      const float largest = kernels().exponentials(logits, vocabulary, &sum);
      kernels().scale(logits, weight / sum, vocabulary);
      logits[target] -= weight;
      return static_cast<double>(weight) * (largest + std::log(sum) - logit);
    });
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto [dx, doutput] = saved_gradients(context, gradients);
    return {at::Tensor(), dx, doutput, at::Tensor(), at::Tensor()};
  }
};

class SoftCrossEntropy : public Function<SoftCrossEntropy> {
 public:
  static at::Tensor forward(AutogradContext* context, int64_t factors, const at::Tensor& x,
                            const at::Tensor& output, const at::Tensor& shares, const at::Tensor& share_rows,
                            const at::Tensor& weights) {
    const int64_t vocabulary = output.size(0);
    return forward_entropy(context, factors_of(factors), x, output, weights, [&](int64_t row, float* logits) {
      const float* p = floats(shares) + share_rows.data_ptr<int64_t>()[row] * vocabulary;
      const float weight = floats(weights)[row];
      const float mean_logit = dot(p, logits, vocabulary);
      float sum = 0;
      const float largest = kernels().exponentials(logits, vocabulary, &sum), scale = weight / sum;
      std::transform(logits, logits + vocabulary, p, logits,
                     [&](float e, float share) { return e * scale - weight * share; });
      return static_cast<double>(weight) * (largest + std::log(sum) - mean_logit);
    });
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto [dx, doutput] = saved_gradients(context, gradients);
    return {at::Tensor(), dx, doutput, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor fused_cross_entropy(Factors factors, const at::Tensor& x, const at::Tensor& output,
                               const at::Tensor& targets, const at::Tensor& weights) {
  return CrossEntropy::apply(static_cast<int64_t>(factors), x, output, targets.contiguous(), weights.contiguous());
}

at::Tensor fused_soft_cross_entropy(Factors factors, const at::Tensor& x, const at::Tensor& output,
                                    const at::Tensor& shares, const at::Tensor& share_rows,
                                    const at::Tensor& weights) {
  return SoftCrossEntropy::apply(static_cast<int64_t>(factors), x, output, shares.contiguous(),
                                 share_rows.contiguous(), weights.contiguous());
}

}  // namespace fathom::train
