#pragma once

#include "evict/stateful_scorer.h"
#include "evict/token_scoring.h"

namespace fathom {

/// The mean attention that the newest `queries` queries give, pooled over `pool` neighbours that are there.
class SnapKvScorer : public LayeredScorer<QueryTail, TailScale> {
 public:
  SnapKvScorer(int64_t queries, int64_t pool);

 protected:
  void listen(const LayerQueries& queries, QueryTails& tails, ThreadPool& pool) const override;
  void score(const LayerTokens& layer, const QueryTails& tails, std::span<float> scores) const override;

 private:
  int64_t queries_, pool_;
};

/// The parameters of keep_parameters, and queries and pool.
std::vector<Parameter> snapkv_parameters();
inline constexpr int64_t kSnapKvWindow = 64;

}  // namespace fathom
