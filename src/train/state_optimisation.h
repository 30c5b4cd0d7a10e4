#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "train/net.h"

namespace fathom::train {

struct StateStepOptions {
  int64_t window = 256;  // tokens per window
  // Learning rate: the first step on a value changes it by about this much. Of 0.001 to 0.3, 0.03 gave the lowest
  // loss for two held-out books and fathom-reader (docs/training.md).
  double rate = 0.03;
  int64_t steps = 1;   // gradient steps per window; 0: the states stay as the net computed them
  int64_t memory = 0;  // newest earlier tokens whose states are kept; 0 = all
};

/// The loss of a window of a text.
struct WindowLoss {
  int64_t tokens = 0;  // predicted tokens
  double nats = 0;     // Σ −ln p of them
};

/// Reads a text window by window and optimises its cache ("Reconsidering the Past: Optimizing Hidden States in
/// Language Models", Yoshida and Gimpel 2021). After a window, gradient steps on the cached keys and values of all
/// earlier tokens reduce the negative log-likelihood of the window's tokens. The loss of a window is that before
/// its steps, so no loss depends on later tokens. Weights do not change.
///
/// Keys are optimised as they are cached, after rotation; positions do not change. The loss of a window does not
/// optimise the window's own states; those of its last forward pass are appended to the cache. Steps are Adam's.
/// The moments and the number of steps belong to a token and are kept as long as its states.
class StateOptimiser {
 public:
  /// Keys and values of a layer, [1, tokens, kv_heads, dimensions] f32.
  struct LayerStates {
    at::Tensor k, v;
  };
  /// A window's forward pass.
  struct Pass {
    at::Tensor loss;                // Σ −ln p, a scalar
    std::vector<LayerStates> rows;  // states of the window's inputs, by layer
  };

  /// Throws Error (usage) for options out of range, and for a net with softplus attention or landmarks.
  StateOptimiser(Net& net, const StateStepOptions& options);

  /// Reads inputs tokens[0, n − 1), predicts tokens[1, n), and then optimises the states of the earlier tokens. The
  /// first token is the last one of the previous call, which only predicted it. Throws Error (usage) for fewer than
  /// two tokens and for a token outside the net's vocabulary, and Error if the loss is not finite.
  WindowLoss read(std::span<const int32_t> tokens);

  /// Returns the forward pass over the next tokens with the present cache, which it leaves unchanged. tokens: [n]
  /// int64. The loss has gradients for those of states() that require them.
  Pass pass(const at::Tensor& tokens);
  /// Returns the cache: the states of the newest earlier tokens, by layer.
  const std::vector<LayerStates>& states() const { return states_; }

 private:
  /// Adam's means of gradients and of their squares.
  struct Moments {
    at::Tensor first, second;
  };

  at::Tensor masked(int64_t rows) const;
  void require_gradients(bool required);
  void step();
  void move(at::Tensor& state, Moments& moments) const;
  void append(const std::vector<LayerStates>& rows);
  bool optimises() const { return options_.steps > 0 && ages_.numel() > 0; }

  Net& net_;
  StateStepOptions options_;
  NetWeights weights_;
  int64_t read_ = 0;  // tokens that were inputs
  std::vector<LayerStates> states_;
  std::vector<std::pair<Moments, Moments>> moments_;  // of keys and values, by layer
  at::Tensor ages_;                                   // [tokens] f32, steps made on the states of each token
};

/// Reads a text and returns the losses of its windows: window i predicts tokens i·window + 1 to (i + 1)·window. All
/// tokens but the first are predicted. progress: called with the number of predicted tokens. Throws Error for a
/// text of fewer than two tokens, and as StateOptimiser.
std::vector<WindowLoss> window_losses(Net& net, std::span<const int32_t> tokens, const StateStepOptions& options,
                                      const std::function<void(int64_t done)>& progress = {});

/// Returns the mean loss per token.
double mean_loss(std::span<const WindowLoss> windows);

}  // namespace fathom::train
