#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "evict/evictor.h"
#include "evict/keep_rule.h"

namespace fathom {

/// The tokens of one layer that a Scorer scores.
struct LayerTokens {
  const PagedKv& kv;
  int layer;
  int heads;  // query heads
  const EvictResources& work;
  const SequenceState* state;  // the scorer's

  int group() const { return heads / kv.heads(); }
  const PageTable& table(int head) const { return kv.table(head); }
};

/// Scores the tokens of a sequence. Eviction methods differ in their scorers. They share the evictor, which decides
/// when tokens are evicted and how many (make_budget_evictor).
class Scorer {
 public:
  virtual ~Scorer() = default;
  /// As Evictor::attach.
  virtual void attach(const AttendContext& context) { static_cast<void>(context); }
  /// As Evictor::new_state.
  virtual std::unique_ptr<SequenceState> new_state() const { return nullptr; }
  /// As Evictor::listen; queries.state is the scorer's state.
  virtual void listen(const LayerQueries& queries, ThreadPool& pool) const {
    static_cast<void>(queries), static_cast<void>(pool);
  }
  /// As Evictor::needs_surprisal and Evictor::surprisal; state: the scorer's.
  virtual bool needs_surprisal() const { return false; }
  virtual void surprisal(const Surprisal& surprisal, SequenceState* state) const {
    static_cast<void>(surprisal), static_cast<void>(state);
  }
  /// Reports that a text of more than one token has been read completely: the tokens from `begin` on.
  virtual void end_text(SequenceState* state, int64_t begin) const {
    static_cast<void>(state), static_cast<void>(begin);
  }
  /// Returns a layer's share of the mean budget, sink and window excluded. The mean over all layers is 1.
  virtual double layer_share(int layer, int layers) const { return static_cast<void>(layer + layers), 1; }
  /// Whether scores may be multiplied by weights (critical=true). This requires scores that are never negative;
  /// scores from attention must be means.
  virtual bool accepts_weights() const { return true; }
  /// Computes the score of each token of a layer; tokens with the highest scores are kept. scores: [kv_heads,
  /// kv.tokens()], by the index at which a token is stored, initially zero. Scores of masked tokens are ignored.
  virtual void score(const LayerTokens& layer, std::span<float> scores) const = 0;
};

/// Defaults of keep_parameters(), which differ between methods.
struct KeepDefaults {
  int64_t budget = 0;  // 0: a share of 0.25
  int64_t sink = 4, window = 0;
};
/// MethodInfo::memory of the methods that use make_budget_evictor().
inline constexpr const char* kKeptMemory =
    "O(budget) tokens; a page of 64 tokens is released when all of them are evicted, so with positions=original "
    "few pages are released where single tokens are kept";
/// Returns the parameters that make_budget_evictor() reads: `budget`, `share`, `sink`, `window`, `slack`, `block`,
/// `heads`, `positions` and `critical`.
std::vector<Parameter> keep_parameters(const KeepDefaults& defaults);
/// Returns an evictor that keeps the tokens with the highest scores within a budget. Throws Error (usage) for
/// values that contradict each other.
std::unique_ptr<Evictor> make_budget_evictor(const Values& values, const KeepDefaults& defaults,
                                             std::unique_ptr<Scorer> scorer);

}  // namespace fathom
