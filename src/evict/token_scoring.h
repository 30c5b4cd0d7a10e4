#pragma once

#include <functional>
#include <span>
#include <vector>

#include "attend/query_tail.h"
#include "evict/scorer.h"

namespace fathom {

/// Calls visit(token, key) for each visible token of a page table, in ascending order of sequence index. key:
/// [key_dim], rotated to the token's position.
void each_key(const LayerTokens& layer, int head,
              const std::function<void(int64_t token, const float* key)>& visit);

/// The factor that a model applies to its attention scores.
struct TailScale {
  float scale = 0;
  void save(ByteWriter& out) const { out.add(scale); }
  void load(ByteReader& in) { scale = in.take<float>(); }
};
/// The state of scorers that use the newest queries of each layer.
using QueryTails = LayerStates<QueryTail, TailScale>;

/// Adds the attention of some query rows to the tokens of a page table, summed over the rows and their heads, to
/// `sums`. Each row attends to the visible tokens up to and including its own. queries: [rows, group, key_dim],
/// rotated by their positions; tokens: [rows], the sequence index of each row, ascending; sums: [kv.tokens()].
void add_attention(const PagedKv& kv, int head, const Kernels& kernels, std::span<const float> queries,
                   std::span<const int64_t> tokens, int group, float scale, std::span<float> sums);

/// Computes the attention of the newest `rows` queries in `tails` (all, if there are fewer), averaged over the rows
/// and over the query heads that share keys. means: [kv_heads, kv.tokens()], initially zero.
void mean_tail_attention(const LayerTokens& layer, const QueryTails& tails, int64_t rows, std::span<float> means);

/// Reorders scores from the indices at which tokens are stored to the indices at which they were read. Indices
/// without a stored token get −∞. scores: [tokens].
void to_read_order(const CompactedTokens& compacted, std::span<float> scores);
/// The inverse for keep flags: reorders them from the indices at which tokens were read to those at which they are
/// stored. keep: [tokens].
void to_stored_order(const CompactedTokens& compacted, std::span<char> keep);

}  // namespace fathom
