#include "models/feed_forward.h"

#include <algorithm>

#include "mixers/projection.h"

namespace fathom {

void apply_activation(const Kernels& kernels, Activation activation, float* inner, const float* up, int64_t n) {
  switch (activation) {
    case Activation::kGelu:
      return kernels.gelu(inner, n);
    case Activation::kReluSquared:
      return kernels.relu_squared(inner, n);
    case Activation::kSwiGlu:
      return kernels.swiglu(inner, up, n);
    case Activation::kGeGlu:
      return kernels.geglu(inner, up, n);
    case Activation::kSwiGluOai:
      return kernels.swiglu_oai(inner, up, n);
  }
}

namespace {

class DenseFeedForward final : public FeedForward {
 public:
  explicit DenseFeedForward(DenseWeights weights) : w_(std::move(weights)) {}

  void forward(Workspace& work, ActivationBuffer& x, float* y) const override {
    const int64_t rows = x.rows(), inner = w_.up.rows;
    work.inner.resize(rows, inner, x.step_rows());
    if (has_gate(w_.activation)) {
      work.up.reserve(rows * inner);
      const Product products[] = {{&w_.gate, work.inner.data(), w_.gate_bias},
                                  {&w_.up, work.up.data(), w_.up_bias}};
      project(work, x, products);
    } else {
      const Product products[] = {{&w_.up, work.inner.data(), w_.up_bias}};
      project(work, x, products);
    }
    work.pool.parallel_for(rows, [&](size_t r, int) {
      apply_activation(work.kernels, w_.activation, work.inner.row(r), work.up.data() + r * inner, inner);
    });
    const Product back[] = {{&w_.down, y, w_.down_bias}};
    project(work, work.inner, back);
  }

  double weight_bytes(int64_t /*rows*/) const override {
    return static_cast<double>(w_.up.bytes() + w_.down.bytes() + (has_gate(w_.activation) ? w_.gate.bytes() : 0));
  }
  int64_t multiply_adds() const override {
    return w_.up.rows * w_.up.cols + w_.down.rows * w_.down.cols +
           (has_gate(w_.activation) ? w_.gate.rows * w_.gate.cols : 0);
  }

 private:
  DenseWeights w_;
};

}  // namespace

std::unique_ptr<FeedForward> make_dense_feed_forward(DenseWeights weights) {
  return std::make_unique<DenseFeedForward>(std::move(weights));
}

}  // namespace fathom
