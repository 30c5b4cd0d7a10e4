#pragma once

#include <memory>

#include "attend/context.h"
#include "attend/listener.h"
#include "attend/surprisal.h"

namespace fathom {

/// What an evictor works with besides the sequence.
struct EvictResources {
  ThreadPool& pool;
  const Kernels& kernels;
};

/// Decides which tokens of a sequence leave memory for good. Thread-safe; what it remembers of a sequence is in the
/// state (Sequence::StateOf::kEvictor). It listens to the queries of each layer, for methods that judge by them.
class Evictor : public AttendListener {
 public:
  /// Called once, before anything is read. Throws Error (usage) for what does not suit the model.
  virtual void attach(const AttendContext& context) { static_cast<void>(context); }
  virtual std::unique_ptr<SequenceState> new_state() const { return nullptr; }
  void listen(const LayerQueries& queries, ThreadPool& pool) const override {
    static_cast<void>(queries), static_cast<void>(pool);
  }
  /// Whether tokens that stay may come to lie elsewhere in their tables (Memory::pack).
  virtual bool moves_tokens() const { return false; }
  /// Whether surprisal() is to be called: logits of all tokens are made for it.
  virtual bool needs_surprisal() const { return false; }
  /// Comes after tokens were read, before evict().
  virtual void surprisal(const Surprisal& surprisal, SequenceState* state) const {
    static_cast<void>(surprisal), static_cast<void>(state);
  }
  /// Comes after each chunk of a text and after each generated token. end: the text that is being read ends here.
  virtual void evict(Sequence& sequence, bool end, const EvictResources& work) const = 0;
};

}  // namespace fathom
