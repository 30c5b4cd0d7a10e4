#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "evict/evictor.h"
#include "evict/keep_rule.h"

namespace fathom {

/// The tokens of one layer, to be judged.
struct LayerTokens {
  const PagedKv& kv;
  int layer;
  int heads;  // query heads
  const EvictResources& work;
  const SequenceState* state;  // the scorer's

  int group() const { return heads / kv.heads(); }
  const PageTable& table(int head) const { return kv.table(head); }
};

/// Says how much tokens are worth keeping; what is done with that is common to all (make_keeping).
class Scorer {
 public:
  virtual ~Scorer() = default;
  virtual void attach(const AttendContext& context) { static_cast<void>(context); }
  virtual std::unique_ptr<SequenceState> new_state() const { return nullptr; }
  /// queries.state: the scorer's.
  virtual void listen(const LayerQueries& queries, ThreadPool& pool) const {
    static_cast<void>(queries), static_cast<void>(pool);
  }
  virtual bool needs_surprisal() const { return false; }
  virtual void surprisal(const Surprisal& surprisal, SequenceState* state) const {
    static_cast<void>(surprisal), static_cast<void>(state);
  }
  /// A text of more than one token has been read: tokens from `begin` on.
  virtual void end_text(SequenceState* state, int64_t begin) const {
    static_cast<void>(state), static_cast<void>(begin);
  }
  /// How much of an even budget a layer gets, of what is not always kept; 1 on average.
  virtual double layer_share(int layer, int layers) const { return static_cast<void>(layer + layers), 1; }
  /// Whether scores can be multiplied: none is ever negative, and if they are of attention, they are means.
  virtual bool has_weights() const { return true; }
  /// scores: [kv_heads, kv.tokens()], by where tokens lie, zero at first; the larger stay. Those of hidden
  /// tokens do not matter.
  virtual void score(const LayerTokens& layer, std::span<float> scores) const = 0;
};

/// What the parameters are unless given.
struct KeepDefaults {
  int64_t budget = 0;  // 0: a share of 0.25
  int64_t sink = 4, window = 0;
};
/// What an evictor's MethodInfo says of memory.
inline constexpr const char* kKeptMemory =
    "O(budget) tokens; a page of 64 is given back when none of its tokens is left: with positions=original few are "
    "where "
    "single ones stay";
/// The parameters that all these methods have.
std::vector<Parameter> keep_parameters(const KeepDefaults& defaults);
/// The evictor that keeps what scores highest. Throws Error (usage) for values that contradict each other.
std::unique_ptr<Evictor> make_keeping(const Values& values, const KeepDefaults& defaults,
                                      std::unique_ptr<Scorer> scorer);

}  // namespace fathom
