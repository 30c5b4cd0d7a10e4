#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <span>
#include <vector>

#include "session/cartridge.h"
#include "train/net.h"
#include "train/self_study.h"

namespace fathom::train {

/// A prefix cache whose keys and values are trained while the net stays frozen ("Cartridges: Lightweight and
/// general-purpose long context representations via self-study", 2025). Keys are parameters before rotation; slot i
/// has position i, and texts begin at position slots(). The first slot is not trained.
class CartridgeNet {
 public:
  /// Initial values are the keys and values of `first`, the first tokens of a text. The net must outlive the
  /// object. Throws Error (usage) for no tokens, a token outside the vocabulary, and a net with softplus attention,
  /// a window or landmarks.
  CartridgeNet(Net& net, std::span<const int32_t> first);

  int64_t slots() const { return slots_; }
  /// Returns the output norms of tokens that follow the slots, [sequences, length, width]. tokens: [sequences,
  /// length] int64.
  at::Tensor read(const at::Tensor& tokens) const;
  /// Returns −Σ share·ln q over the answers of conversations, divided by the number of their tokens, a scalar.
  at::Tensor loss(std::span<const Conversation* const> conversations) const;
  /// Returns the slots for the engine.
  Cartridge cartridge() const;

  /// Return all values and their gradients, f32 [values]: those of the frozen slot have gradient 0.
  const at::Tensor& values() const { return values_; }
  const at::Tensor& gradients() const { return gradients_; }

 private:
  /// The parameters of a layer: leaves that share memory with values_.
  struct Slots {
    at::Tensor k;  // [slots, kv_heads, key_dim], unrotated
    at::Tensor v;  // [slots, kv_heads, value_dim]
  };
  void allocate();
  void initialise(const at::Tensor& tokens);

  Net& net_;
  NetWeights weights_;
  int64_t slots_;
  at::Tensor values_, gradients_;
  std::vector<Slots> layers_;
};

struct CartridgeSteps {
  int64_t steps = 100;
  int64_t batch = 64;  // conversations of a step
  double rate = 0.02;  // learning rate of Adam in the first step; it decreases linearly to 0
  uint64_t seed = 0;   // of the order of conversations
};
/// Trains with Adam on conversations in random order; each is used once before any is used again. report: called
/// with the number of steps done and the loss of the last one, in nats per answer token. Throws Error (usage) for
/// no conversations or numbers out of range, and Error if the loss is not finite.
void train_cartridge(CartridgeNet& net, std::span<const Conversation> conversations, const CartridgeSteps& options,
                     const std::function<void(int64_t step, double loss)>& report = {});

}  // namespace fathom::train
