#pragma once

#include <cstdint>
#include <memory>
#include <variant>
#include <vector>

#include "base/byte_stream.h"

namespace fathom {

class Sequence;

/// The state of a method (selector or evictor) for one sequence. The Sequence owns it, forks it and rewinds it.
class SequenceState {
 public:
  virtual ~SequenceState() = default;
  /// Returns a copy for a fork of the sequence.
  virtual std::unique_ptr<SequenceState> fork() const = 0;
  /// Called after the sequence was truncated to `tokens` tokens.
  virtual void rewind(int64_t tokens) = 0;
  /// Returns whether the state refers to tokens by index or position. Then no evictor may compact the sequence
  /// (PagedKv::compact).
  virtual bool stores_positions() const { return true; }
  /// Appends the state to `out`, without what load() can derive from the sequence at little cost.
  virtual void save(ByteWriter& out) const {
    static_cast<void>(out);
    fail("the state of this method cannot be saved");
  }
  /// Restores a state that save() wrote into a new state. sequence: the one that holds the tokens of the saved
  /// state; its pages may have other ids. Throws Error for contents that do not fit the sequence, which may come
  /// from an altered file; the state must then not be used.
  virtual void load(ByteReader& in, const Sequence& sequence) {
    static_cast<void>(in), static_cast<void>(sequence);
    fail("the state of this method cannot be loaded");
  }
};

/// A method state that consists of one Layer per layer and a Common part. Forks copy them. Layer has a member
/// function rewind(tokens). A Layer with a member kDetectsMovedTokens detects moved tokens itself, so it does not
/// forbid compaction.
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
  /// Casts a state that is known to be of this type.
  static LayerStates& of(SequenceState* state) { return static_cast<LayerStates&>(*state); }
  static const LayerStates& of(const SequenceState* state) { return static_cast<const LayerStates&>(*state); }

  std::vector<Layer> layers;
  Common common;
};

}  // namespace fathom
