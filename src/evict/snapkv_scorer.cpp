#include "evict/snapkv_scorer.h"

#include "attend/key_scores.h"
#include "base/error.h"

namespace fathom {

SnapKvScorer::SnapKvScorer(int64_t queries, int64_t pool) : queries_(queries), pool_(pool) {
  if (pool % 2 == 0) fail_usage("evict method: pool: expected an odd number, found ", pool);
}

void SnapKvScorer::listen(const LayerQueries& queries, QueryTails& tails, ThreadPool& /*pool*/) const {
  tails.layers.at(queries.layer).add(queries, queries_);
  tails.common.scale = queries.scale;
}

void SnapKvScorer::score(const LayerTokens& layer, const QueryTails& tails, std::span<float> scores) const {
  mean_tail_attention(layer, tails, queries_, scores);
  const int64_t tokens = layer.kv.tokens();
  layer.work.pool.parallel_for(layer.kv.heads(), [&](size_t h, int) {
    const std::span<float> head_scores = scores.subspan(h * tokens, tokens);
    std::vector<float> visible;  // scores of visible tokens only: the pool averages over the nearest visible tokens
    // As in the paper, scores of the newest queries' own tokens are not pooled.
    const int64_t end = tokens - queries_;
    const PageTable& table = layer.table(static_cast<int>(h));
    const auto each = [&](const auto& visit) {
      for (const PageEntry& entry : table) {
        for (int t = 0; entry.mask && t < entry.filled; ++t)
          if (entry.mask >> t & 1 && entry.first + t < end) visit(head_scores[entry.first + t]);
      }
    };
    each([&](float& score) { visible.push_back(score); });
    mean_pool(visible, pool_);
    size_t next = 0;
    each([&](float& score) { score = visible[next++]; });
  });
}

std::vector<Parameter> snapkv_parameters() {
  using Type = Parameter::Type;
  std::vector<Parameter> parameters = keep_parameters({.sink = 0, .window = kSnapKvWindow});
  parameters.push_back({"queries",
                        Type::kInt,
                        std::to_string(kSnapKvWindow),
                        "newest queries whose attention gives the scores; more is less noisy and slower",
                        1,
                        4096,
                        {}});
  parameters.push_back({"pool",
                        Type::kInt,
                        "5",
                        "neighbours whose scores are averaged, odd; more keeps longer phrases",
                        1,
                        1023,
                        {}});
  return parameters;
}

}  // namespace fathom
