#include "evict/snapkv_scorer.h"

#include "attend/key_scores.h"
#include "base/error.h"

namespace fathom {

SnapKvScorer::SnapKvScorer(int64_t queries, int64_t pool) : queries_(queries), pool_(pool) {
  if (pool % 2 == 0) fail_usage("evict method: pool: expected an odd number, found ", pool);
}

void SnapKvScorer::listen(const LayerQueries& queries, QueryTails& tails, ThreadPool& /*pool*/) const {
  tails.layers.at(queries.layer).add(queries, queries_);
  tails.common.of_scores = queries.scale;
}

void SnapKvScorer::score(const LayerTokens& layer, const QueryTails& tails, std::span<float> scores) const {
  mean_tail_attention(layer, tails, queries_, scores);
  const int64_t tokens = layer.kv.tokens();
  layer.work.pool.parallel_for(layer.kv.heads(), [&](size_t h, int) {
    const std::span<float> own = scores.subspan(h * tokens, tokens);
    std::vector<float> there;                  // side by side: neighbours are those that are left
    const int64_t window = tokens - queries_;  // what judges is no neighbour, as published
    const PageTable& table = layer.table(static_cast<int>(h));
    const auto each = [&](const auto& visit) {
      for (const PageEntry& entry : table) {
        for (int t = 0; entry.mask && t < entry.filled; ++t)
          if (entry.mask >> t & 1 && entry.first + t < window) visit(own[entry.first + t]);
      }
    };
    each([&](float& score) { there.push_back(score); });
    mean_pool(there, pool_);
    size_t next = 0;
    each([&](float& score) { score = there[next++]; });
  });
}

std::vector<Parameter> snapkv_parameters() {
  using Type = Parameter::Type;
  std::vector<Parameter> parameters = keep_parameters({.sink = 0, .window = kSnapKvWindow});
  parameters.push_back({"queries",
                        Type::kInt,
                        std::to_string(kSnapKvWindow),
                        "newest queries whose attention is the score",
                        1,
                        4096,
                        {}});
  parameters.push_back({"pool", Type::kInt, "5", "width of the mean over neighbours, odd", 1, 1023, {}});
  return parameters;
}

}  // namespace fathom
