#pragma once

#include <memory>
#include <vector>

#include "mixers/mixer.h"

namespace fathom {

/// The activation of a feed-forward: of one number, or of a gate and what it gates.
enum class Activation {
  kGelu,         // gelu(up), the tanh form
  kReluSquared,  // max(0, up)²
  kSwiGlu,       // silu(gate) · up
  kGeGlu,        // gelu(gate) · up
  kSwiGluOai,    // of gpt-oss: clamped, and 1 is added to up
};
inline bool has_gate(Activation activation) { return activation >= Activation::kSwiGlu; }

/// Applies an activation to rows: inner becomes the result. inner: up, or the gate where there is one. n: numbers.
void apply_activation(const Kernels& kernels, Activation activation, float* inner, const float* up, int64_t n);

/// The part of a layer that treats each token on its own. Immutable, thread-safe.
class FeedForward {
 public:
  virtual ~FeedForward() = default;
  /// x: [rows, width], normed; y: [rows, width].
  virtual void forward(Workspace& work, ActivationBuffer& x, float* y) const = 0;
  /// Bytes of weights that a pass over so many tokens reads; where tokens choose experts, the expected number.
  virtual double weight_bytes(int64_t rows) const = 0;
  /// Multiply-adds of weights for one token.
  virtual int64_t multiply_adds() const = 0;
};

/// down(activation(up·x)), or with a gate down(activation(gate·x, up·x)).
struct DenseWeights {
  Activation activation = Activation::kSwiGlu;
  Matrix gate;  // empty without a gate
  Matrix up, down;
  std::vector<float> gate_bias, up_bias, down_bias;  // empty = none
};
std::unique_ptr<FeedForward> make_dense_feed_forward(DenseWeights weights);

/// How a mixture of experts chooses, for each token, those that it uses, and weighs them.
struct Routing {
  enum class Gate {
    kSoftmax,          // p = softmax of all scores; the largest p are chosen
    kSigmoid,          // p = sigmoid of each score
    kSoftmaxOfChosen,  // the largest scores are chosen; p = softmax of those
  };
  Gate gate = Gate::kSoftmax;
  int used = 0;            // experts per token
  bool normalise = false;  // the chosen weights are divided by their sum
  float scale = 1;         // multiplies weights
  int groups = 1;          // experts are in so many groups, of which only the best are chosen from
  int groups_used = 1;
  std::vector<float> bias{};  // [experts] added to p for choosing alone; empty = none
};

/// A mixture of experts: Σ over the chosen experts of weight · expert(x), and shared experts that all tokens use.
struct ExpertWeights {
  Matrix router;                   // [experts, width]
  std::vector<float> router_bias;  // [experts]; empty = none
  Routing routing;
  Activation activation = Activation::kSwiGlu;
  std::vector<Matrix> gate, up, down;                // [experts]
  std::vector<float> gate_bias, up_bias, down_bias;  // [experts, rows]; empty = none
  std::unique_ptr<FeedForward> shared;               // null: none
  std::vector<float> shared_gate;                    // [width] sigmoid gate of the shared expert; empty = none
};
std::unique_ptr<FeedForward> make_expert_feed_forward(ExpertWeights weights);

/// The experts that one token uses, and their weights: [used] each. scores: [experts], overwritten.
void route(const Routing& routing, std::span<float> scores, std::span<int32_t> experts, std::span<float> weights);

}  // namespace fathom
