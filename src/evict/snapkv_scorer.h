#pragma once

#include "evict/lane_tokens.h"
#include "evict/stateful_scorer.h"

namespace fathom {

/// The mean attention that the newest `window` queries give, pooled over `pool` neighbours that are there.
class SnapKvScorer : public LayeredScorer<QueryTail, TailScale> {
 public:
  SnapKvScorer(int64_t window, int64_t pool);

 protected:
  void listen(const LayerQueries& queries, QueryTails& tails, ThreadPool& pool) const override;
  void score(const LayerTokens& layer, const QueryTails& tails, std::span<float> scores) const override;

 private:
  int64_t window_, pool_;
};

/// The parameters window and pool besides those of keep_parameters.
std::vector<Parameter> snapkv_parameters();
inline constexpr int64_t kSnapKvWindow = 64;

}  // namespace fathom
