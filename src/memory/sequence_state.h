#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <variant>
#include <vector>

#include "base/byte_stream.h"
#include "memory/paged_kv.h"

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
  /// Bytes of what grows with the number of tokens; of parts that forks share, a fair share.
  virtual size_t bytes() const = 0;
  /// Appends the state to `out`, without what load() can derive from the sequence at little cost, and without what
  /// is valid only during a forward pass. sequence: the one that the state belongs to; no tokens may be open.
  virtual void save(ByteWriter& out, const Sequence& sequence) const = 0;
  /// Restores a state that save() wrote into a new state. sequence: the one that holds the tokens of the saved
  /// state; its pages may have other ids. Throws Error for contents that do not fit the sequence, which may come
  /// from an altered file; the state must then not be used.
  virtual void load(ByteReader& in, const Sequence& sequence) = 0;
};

/// Returns an object's fair share of `bytes` that several objects share.
template <class T>
size_t fair_share(const std::shared_ptr<T>& shared, size_t bytes) {
  return shared ? bytes / static_cast<size_t>(std::max(shared.use_count(), 1L)) : 0;
}
/// Bytes of the elements of vectors.
template <class T>
size_t bytes_of(const std::vector<T>& list) {
  return list.capacity() * sizeof(T);
}
template <class T>
size_t bytes_of(const std::vector<std::vector<T>>& lists) {
  size_t bytes = 0;
  for (const std::vector<T>& list : lists) bytes += bytes_of(list);
  return bytes;
}

/// A layer of a sequence, for which a part of a method state is saved or loaded. A layer without paged keys and
/// values, or one that is not run, has no tokens and no heads.
class SequenceLayer {
 public:
  /// query_heads: of the layer in the model.
  SequenceLayer(const Sequence& sequence, int layer, int query_heads);

  const PagedKv* kv() const { return kv_; }  // null if the layer has none
  int64_t tokens() const { return kv_ ? kv_->tokens() : 0; }
  int heads() const { return kv_ ? kv_->heads() : 0; }  // key/value heads
  int query_heads() const { return kv_ ? query_heads_ : 0; }
  int key_dim() const { return kv_ ? kv_->shape().key_dim : 0; }
  /// Returns the number of floats of the queries of one token, query_heads · key_dim.
  int64_t query_width() const { return int64_t{query_heads()} * key_dim(); }
  /// Returns the number of page-table entries of a head that hold at least one of the first `tokens` tokens.
  int64_t entries(int head, int64_t tokens) const;
  /// Throws Error unless the next number in `in` is heads() or 0. Returns it.
  int take_heads(ByteReader& in) const;

 private:
  const PagedKv* kv_ = nullptr;
  int query_heads_;
};

/// A method state that consists of one Layer per layer and a Common part. Forks copy them. Layer has the member
/// functions rewind(tokens), save(ByteWriter&, const SequenceLayer&) and load(ByteReader&, const SequenceLayer&);
/// Common has save(ByteWriter&) and load(ByteReader&). Those that grow with the number of tokens by more than a few
/// bits per token have bytes(). A Layer with a member kDetectsMovedTokens detects moved tokens itself, so it does
/// not forbid compaction.
template <class Layer, class Common = std::monostate>
struct LayerStates final : SequenceState {
  /// heads: query heads of each layer; 0: the layer has no attention.
  explicit LayerStates(std::vector<int> heads) : layers(heads.size()), query_heads(std::move(heads)) {}
  std::unique_ptr<SequenceState> fork() const override { return std::make_unique<LayerStates>(*this); }
  void rewind(int64_t tokens) override {
    for (Layer& layer : layers) layer.rewind(tokens);
  }
  bool stores_positions() const override {
    return !requires { Layer::kDetectsMovedTokens; };
  }
  size_t bytes() const override {
    size_t bytes = 0;
    if constexpr (requires { layers[0].bytes(); })
      for (const Layer& layer : layers) bytes += layer.bytes();
    if constexpr (requires { common.bytes(); }) bytes += common.bytes();
    return bytes;
  }
  void save(ByteWriter& out, const Sequence& sequence) const override {
    for (size_t i = 0; i < layers.size(); ++i) layers[i].save(out, layer_of(sequence, i));
    if constexpr (!std::is_same_v<Common, std::monostate>) common.save(out);
  }
  void load(ByteReader& in, const Sequence& sequence) override {
    for (size_t i = 0; i < layers.size(); ++i) layers[i].load(in, layer_of(sequence, i));
    if constexpr (!std::is_same_v<Common, std::monostate>) common.load(in);
  }
  /// Casts a state that is known to be of this type.
  static LayerStates& of(SequenceState* state) { return static_cast<LayerStates&>(*state); }
  static const LayerStates& of(const SequenceState* state) { return static_cast<const LayerStates&>(*state); }

  std::vector<Layer> layers;
  Common common;
  std::vector<int> query_heads;  // [layers]

 private:
  SequenceLayer layer_of(const Sequence& sequence, size_t i) const {
    return {sequence, static_cast<int>(i), query_heads[i]};
  }
};

}  // namespace fathom
