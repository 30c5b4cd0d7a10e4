#pragma once

#include <memory>

#include "attend/context.h"
#include "attend/listener.h"
#include "attend/surprisal.h"

namespace fathom {

/// The thread pool and kernels that an evictor runs on.
struct EvictResources {
  ThreadPool& pool;
  const Kernels& kernels;
};

/// Decides which tokens of a sequence are removed from memory permanently. Thread-safe: everything an evictor
/// stores about a sequence is in that sequence's state (Sequence::StateOf::kEvictor). As an AttendListener it
/// receives the queries of each layer, for methods whose scores depend on them.
class Evictor : public AttendListener {
 public:
  /// Called once, before anything is read. Throws Error (usage) if the method does not suit the model.
  virtual void attach(const AttendContext& context) { static_cast<void>(context); }
  /// Returns the state of an empty sequence; null for a method without state.
  virtual std::unique_ptr<SequenceState> new_state() const { return nullptr; }
  void listen(const LayerQueries& queries, ThreadPool& pool) const override {
    static_cast<void>(queries), static_cast<void>(pool);
  }
  /// Whether kept tokens may change their positions and page-table entries (PagedKv::compact).
  virtual bool moves_tokens() const { return false; }
  /// Whether surprisal() must be called. The session then computes the logits of all tokens.
  virtual bool needs_surprisal() const { return false; }
  /// Reports the surprisal of tokens after they were read and before evict().
  virtual void surprisal(const Surprisal& surprisal, SequenceState* state) const {
    static_cast<void>(surprisal), static_cast<void>(state);
  }
  /// Evicts tokens. Called after each chunk of a text and after each generated token. end: false if further chunks
  /// of the same text follow, else true.
  virtual void evict(Sequence& sequence, bool end, const EvictResources& work) const = 0;
};

}  // namespace fathom
