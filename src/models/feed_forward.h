#pragma once

#include <memory>
#include <vector>

#include "mixers/mixer.h"

namespace fathom {

/// The activation of a feed-forward: of one value, or of a gate and the value it multiplies.
enum class Activation {
  kGelu,         // gelu(up), the tanh form
  kReluSquared,  // max(0, up)²
  kSwiGlu,       // silu(gate) · up
  kGeGlu,        // gelu(gate) · up
  kSwiGluOai,    // of gpt-oss: inputs are clamped, and 1 is added to up
};
inline bool has_gate(Activation activation) { return activation >= Activation::kSwiGlu; }

/// Applies an activation and writes the result to `inner`. inner: up, or the gate if the activation has one; up:
/// read only with a gate. n: number of values.
void apply_activation(const Kernels& kernels, Activation activation, float* inner, const float* up, int64_t n);

/// The part of a layer that processes each token separately. Immutable and thread-safe.
class FeedForward {
 public:
  virtual ~FeedForward() = default;
  /// Writes y, [rows, width]. x: [rows, width], normalised.
  virtual void forward(Workspace& work, ActivationBuffer& x, float* y) const = 0;
  /// Returns the bytes of weights that a pass over `rows` tokens reads; with experts, the expected value.
  virtual double weight_bytes(int64_t rows) const = 0;
  /// Returns the number of multiply-adds with weights per token.
  virtual int64_t multiply_adds() const = 0;
};

/// The weights of down(activation(up·x)), or with a gate down(activation(gate·x, up·x)).
struct DenseWeights {
  Activation activation = Activation::kSwiGlu;
  Matrix gate;  // empty without a gate
  Matrix up, down;
  std::vector<float> gate_bias, up_bias, down_bias;  // empty: none
};
std::unique_ptr<FeedForward> make_dense_feed_forward(DenseWeights weights);

/// How a mixture of experts selects and weights the experts of each token.
struct Routing {
  enum class Gate {
    kSoftmax,          // p = softmax of all scores; the experts with the largest p are selected
    kSigmoid,          // p = sigmoid of each score; the experts with the largest p are selected
    kSoftmaxOfChosen,  // the experts with the largest scores are selected; p = softmax of their scores
  };
  Gate gate = Gate::kSoftmax;
  int used = 0;            // experts per token
  bool normalise = false;  // the weights of the selected experts are divided by their sum
  float scale = 1;         // multiplies weights
  int groups = 1;          // groups of experts; experts are selected from the best `groups_used` groups only
  int groups_used = 1;
  std::vector<float> bias{};  // [experts], added to p for the selection only; empty: none
};

/// The weights of a mixture of experts: Σ over the selected experts of weight · expert(x), plus shared experts that
/// all tokens use.
struct ExpertWeights {
  Matrix router;                   // [experts, width]
  std::vector<float> router_bias;  // [experts]; empty: none
  Routing routing;
  Activation activation = Activation::kSwiGlu;
  std::vector<Matrix> gate, up, down;                // [experts]
  std::vector<float> gate_bias, up_bias, down_bias;  // [experts, rows]; empty: none
  std::unique_ptr<FeedForward> shared;               // null: none
  std::vector<float> shared_gate;                    // [width], sigmoid gate of the shared expert; empty: none
};
std::unique_ptr<FeedForward> make_expert_feed_forward(ExpertWeights weights);

/// Sets the experts of one token and their weights: [used] each. scores: [experts], overwritten.
void route(const Routing& routing, std::span<float> scores, std::span<int32_t> experts, std::span<float> weights);

}  // namespace fathom
