#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "base/error.h"
#include "memory/sequence.h"
#include "number_recurrence.h"
#include "token_pages.h"

// Sequences with layers of all kinds, whose tokens are written and compared without a model.
namespace fathom::test {

using Int64List = std::vector<int64_t>;

enum class LayerKind { kPaged, kRecurrent, kBoth };

/// Creates layers and sequences that share a page store and a budget.
struct LayerFactory {
  std::shared_ptr<PageStore> store = small_store();
  std::shared_ptr<MemoryBudget> budget;  // for recurrent states

  std::unique_ptr<LayerState> paged() const {
    PagedKvConfig config;
    config.store = store;
    config.heads = 2;
    config.rotations = small_rotations();
    return std::make_unique<PagedKv>(config);
  }
  std::unique_ptr<LayerState> recurrent() const {
    return std::make_unique<RecurrentState>(number_layout(), budget);
  }
  std::unique_ptr<LayerState> layer(LayerKind kind) const {
    if (kind == LayerKind::kPaged) return paged();
    if (kind == LayerKind::kRecurrent) return recurrent();
    return std::make_unique<CombinedState>(paged(), recurrent());
  }
  Sequence sequence(const std::vector<LayerKind>& kinds, CheckpointPolicy checkpoints = {}) const {
    std::vector<std::unique_ptr<LayerState>> layers;
    for (const LayerKind kind : kinds) layers.push_back(layer(kind));
    return Sequence(std::move(layers), std::move(checkpoints));
  }
};

/// Writes the opened tokens in all layers, as mixers do.
inline void write(Sequence& sequence, const Int64List& ids) {
  for (int layer = 0; layer < sequence.layers(); ++layer) {
    if (sequence.paged(layer)) write_tokens(sequence, layer, ids);
    if (sequence.recurrent(layer)) write_numbers(*sequence.recurrent(layer), ids);
  }
}

inline void open(Sequence& sequence, const Int64List& ids) {
  sequence.open(following(sequence.next_position(), std::ssize(ids)), std::vector<int32_t>(ids.begin(), ids.end()));
}

inline void read(Sequence& sequence, const Int64List& ids) {
  open(sequence, ids);
  write(sequence, ids);
  sequence.commit();
}

/// Expects that all layers hold these tokens.
inline void expect_tokens(Sequence& sequence, const Int64List& ids) {
  const auto tokens = std::ssize(ids);
  ASSERT_EQ(sequence.tokens(), tokens);
  ASSERT_EQ(sequence.next_position(), tokens);
  ASSERT_EQ(sequence.ids().size(), tokens);
  for (int64_t i = 0; i < tokens; ++i) ASSERT_EQ(sequence.ids()[i], ids[i]);
  for (int layer = 0; layer < sequence.layers(); ++layer) {
    if (const RecurrentState* state = sequence.recurrent(layer)) {
      ASSERT_NO_FATAL_FAILURE(expect_numbers(*state, ids)) << "layer " << layer;
    }
    const PagedKv* kv = sequence.paged(layer);
    if (!kv) continue;
    ASSERT_EQ(kv->tokens(), tokens);
    for (int head = 0; head < kv->heads(); ++head) {
      ASSERT_EQ(kv->table(head).size(), (tokens + kPageTokens - 1) / kPageTokens);
      for (int64_t i = 0; i < tokens; ++i) {
        ASSERT_NO_FATAL_FAILURE(expect_token(kv->store(), kv->table(head)[i / kPageTokens].page,
                                             static_cast<int>(i % kPageTokens), ids[i],
                                             layer * kv->heads() + head));
      }
    }
  }
}

/// A layer that counts tokens, throws if its switches say so, and can only be truncated to multiples of `step`.
class FakeLayer final : public LayerState {
 public:
  struct Switches {
    bool open_fails = false, accept_fails = false;
    int opened = 0, truncated = 0;  // numbers of calls
  };
  FakeLayer(std::shared_ptr<Switches> switches, int64_t step) : switches_(std::move(switches)), step_(step) {}

  std::unique_ptr<LayerState> fork() const override { return std::make_unique<FakeLayer>(*this); }
  void open(const OpenedTokens& tokens) override {
    if (switches_->open_fails) throw Error("this layer fails");
    ++switches_->opened;
    open_ = std::ssize(tokens.positions);
  }
  void commit() noexcept override { tokens_ += std::exchange(open_, 0); }
  void accept(int64_t count) override {
    if (switches_->accept_fails) throw Error("this layer fails");
    tokens_ += count;
    open_ = 0;
  }
  int64_t floor(int64_t tokens) const override {
    return tokens >= tokens_ ? std::min(tokens, tokens_) : tokens / step_ * step_;
  }
  void truncate(int64_t tokens) override {
    ++switches_->truncated;
    tokens_ = std::min(tokens, tokens_);
    open_ = 0;
  }
  size_t bytes() const override { return 1000; }

 private:
  std::shared_ptr<Switches> switches_;
  int64_t step_, tokens_ = 0, open_ = 0;
};

/// A sequence of layers of all kinds and, at index `at`, a FakeLayer.
struct SequenceWithFakeLayer {
  explicit SequenceWithFakeLayer(size_t at, int64_t step = 1) {
    std::vector<std::unique_ptr<LayerState>> layers;
    for (const LayerKind kind : {LayerKind::kPaged, LayerKind::kRecurrent, LayerKind::kBoth})
      layers.push_back(factory.layer(kind));
    layers.insert(layers.begin() + static_cast<std::ptrdiff_t>(at), std::make_unique<FakeLayer>(switches, step));
    sequence = Sequence(std::move(layers));
  }
  LayerFactory factory;
  std::shared_ptr<FakeLayer::Switches> switches = std::make_shared<FakeLayer::Switches>();
  Sequence sequence{{}};
};

}  // namespace fathom::test
