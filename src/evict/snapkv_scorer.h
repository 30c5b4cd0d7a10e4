#pragma once

#include "evict/stateful_scorer.h"
#include "evict/token_scoring.h"

namespace fathom {

/// Scores a token by the mean attention of the newest `queries` queries, averaged over `pool` neighbouring visible
/// tokens. SnapKV: LLM Knows What You are Looking for Before Generation, 2024.
class SnapKvScorer : public LayeredScorer<QueryTail, TailScale> {
 public:
  /// Throws Error (usage) if `pool` is even.
  SnapKvScorer(int64_t queries, int64_t pool);

 protected:
  void listen(const LayerQueries& queries, QueryTails& tails, ThreadPool& pool) const override;
  void score(const LayerTokens& layer, const QueryTails& tails, std::span<float> scores) const override;

 private:
  int64_t queries_, pool_;
};

/// Returns the parameters of keep_parameters, and `queries` and `pool`.
std::vector<Parameter> snapkv_parameters();
/// The default of `window` and of `queries`.
inline constexpr int64_t kSnapKvWindow = 64;

}  // namespace fathom
