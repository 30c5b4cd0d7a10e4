#pragma once

#include <functional>
#include <span>
#include <vector>

#include "attend/query_tail.h"
#include "evict/scorer.h"

namespace fathom {

/// Calls visit(token, key) for each visible token of a table, in order. key: [key_dim], rotated to its place.
void each_key(const LayerTokens& layer, int head,
              const std::function<void(int64_t token, const float* key)>& visit);

/// The newest queries of each layer, and what scales their scores: the state of scorers that judge by them.
struct TailScale {
  float of_scores = 0;
};
using QueryTails = LayerStates<QueryTail, TailScale>;

/// Attention that some rows of a table's queries give to its tokens, hidden ones and later ones aside: added up
/// over rows and heads. queries: [rows, group, key_dim], rotated; tokens: [rows], sequence index of each,
/// ascending; sums: [kv.tokens()].
void add_attention(const PagedKv& kv, int head, const Kernels& kernels, std::span<const float> queries,
                   std::span<const int64_t> tokens, int group, float scale, std::span<float> sums);

/// The mean of what the newest `rows` queries that a scorer has heard give, over rows and the heads that share
/// keys. means: [kv_heads, kv.tokens()], zero at first.
void mean_tail_attention(const LayerTokens& layer, const QueryTails& tails, int64_t rows, std::span<float> means);

/// Scores by where tokens lie become scores by where they were read; others are −∞.
void order_as_read(const CompactedTokens& compacted, std::span<float> scores);
/// What stays, by where tokens were read, becomes that by where they lie.
void order_as_stored(const CompactedTokens& compacted, std::span<char> keep);

}  // namespace fathom
