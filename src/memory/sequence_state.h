#pragma once

#include <cstdint>
#include <memory>
#include <variant>
#include <vector>

namespace fathom {

/// What a method keeps of one sequence beside its pages. It belongs to the memory: forked with it, rewound with it.
class SequenceState {
 public:
  virtual ~SequenceState() = default;
  virtual std::unique_ptr<SequenceState> fork() const = 0;
  /// The sequence has only this many tokens any more.
  virtual void rewind(int64_t tokens) = 0;
  /// Whether it knows tokens by where they lie, so that they must not move (Memory::pack).
  virtual bool stores_positions() const { return true; }
};

/// A state of so much for each layer (copied by forks, and with a rewind of its own), and what all layers share. A
/// Layer that has a kDetectsMovedTokens notices by itself where tokens have moved.
template <class Layer, class Common = std::monostate>
struct LayerStates final : SequenceState {
  explicit LayerStates(int count) : layers(count) {}
  std::unique_ptr<SequenceState> fork() const override { return std::make_unique<LayerStates>(*this); }
  void rewind(int64_t tokens) override {
    for (Layer& layer : layers) layer.rewind(tokens);
  }
  bool stores_positions() const override {
    return !requires { Layer::kDetectsMovedTokens; };
  }
  /// What a state of this kind keeps.
  static LayerStates& of(SequenceState* state) { return static_cast<LayerStates&>(*state); }
  static const LayerStates& of(const SequenceState* state) { return static_cast<const LayerStates&>(*state); }

  std::vector<Layer> layers;
  Common common;
};

}  // namespace fathom
