// Keeps the tokens that have received most attention so far.
#include <algorithm>
#include <vector>

#include "attend/key_scores.h"
#include "base/error.h"
#include "evict/methods.h"
#include "evict/stateful_scorer.h"
#include "evict/token_scoring.h"

namespace fathom {
namespace {

/// Attention received by each token of a layer, by the index at which it was read. After a rewind the sums of the
/// remaining tokens still include the attention of the removed ones.
struct AttentionSums {
  std::vector<std::vector<float>> attention;  // [kv_heads, tokens], summed over the counted rows
  std::vector<float> rows;                    // [tokens]: counted rows that could attend to the token
  void rewind(int64_t tokens) {
    if (std::ssize(rows) <= tokens) return;
    rows.resize(tokens);
    for (std::vector<float>& sums : attention) sums.resize(tokens);
  }
  size_t bytes() const { return bytes_of(attention) + bytes_of(rows); }
  void save(ByteWriter& out, const SequenceLayer& /*layer*/) const {
    out.add(static_cast<int32_t>(attention.size()));
    out.add_list(rows);
    for (const std::vector<float>& sums : attention) out.add_list(sums);
  }
  void load(ByteReader& in, const SequenceLayer& layer) {
    attention.resize(layer.take_heads(in));
    rows = in.take_list_up_to<float>(layer.tokens());
    for (std::vector<float>& sums : attention) sums = in.take_list<float>(rows.size());
  }
};
using H2oState = LayerStates<AttentionSums>;

class H2o final : public LayeredScorer<AttentionSums> {
 public:
  explicit H2o(int64_t rows) : rows_(rows) {}

  void listen(const LayerQueries& queries, H2oState& state, ThreadPool& pool) const override {
    AttentionSums& layer = state.layers.at(queries.layer);
    const PagedKv& kv = *queries.kv;
    const int64_t count = rows_ > 0 ? std::min(rows_, queries.rows) : queries.rows;
    std::vector<int64_t> tokens(count);  // evenly spaced, including the last one
    for (int64_t i = 0; i < count; ++i) tokens[i] = queries.first + (i + 1) * queries.rows / count - 1;
    layer.attention.resize(kv.heads());
    layer.rows.resize(kv.tokens());
    for (const int64_t token : tokens)
      for (int64_t t = 0; t <= token; ++t) layer.rows[t] += 1;
    pool.parallel_for(kv.heads(), [&](size_t head, int) {
      layer.attention[head].resize(kv.tokens());
      add(queries, tokens, static_cast<int>(head), layer.attention[head]);
    });
  }

  void score(const LayerTokens& layer, const H2oState& state, std::span<float> scores) const override {
    const AttentionSums& sums = state.layers.at(layer.layer);
    const int64_t tokens = layer.kv.tokens();
    const auto group = static_cast<float>(layer.group());
    for (size_t h = 0; h < sums.attention.size(); ++h) {
      const CompactedTokens& compacted = layer.kv.compacted(static_cast<int>(h));
      for (int64_t t = 0; t < std::min(tokens, std::ssize(sums.rows)); ++t) {
        const int64_t read = compacted.original_index(t);
        scores[h * tokens + t] = sums.attention[h][read] / (std::max(1.0f, sums.rows[read]) * group);
      }
    }
  }

 private:
  /// Adds the attention of the queries of `tokens` to `sums`, by read index.
  static void add(const LayerQueries& queries, const std::vector<int64_t>& tokens, int head,
                  std::span<float> sums) {
    const std::vector<float> rotated = rotate(queries, tokens, head);
    const auto add_to = [&](std::span<float> to) {
      add_attention(*queries.kv, head, *queries.kernels, rotated, tokens, queries.group(), queries.scale, to);
    };
    const CompactedTokens& compacted = queries.kv->compacted(head);
    if (compacted.original_indices.empty()) return add_to(sums);
    std::vector<float> stored(sums.size());  // by the index at which tokens are stored
    add_to(stored);
    for (int64_t t = compacted.begin; t < std::ssize(sums); ++t) sums[compacted.original_index(t)] += stored[t];
  }

  /// Returns the queries of `tokens`, rotated by their positions: [tokens, group, key_dim].
  static std::vector<float> rotate(const LayerQueries& queries, const std::vector<int64_t>& tokens, int head) {
    const int group = queries.group(), dim = queries.kv->shape().key_dim;
    std::vector<float> rotated(tokens.size() * group * dim), scratch(dim);
    for (size_t i = 0; i < tokens.size() * group; ++i)
      rotate_query(queries, tokens[i / group] - queries.first, head * group + static_cast<int>(i) % group,
                   scratch.data(), rotated.data() + i * dim);
    return rotated;
  }

  int64_t rows_;
};

}  // namespace

EvictEntry h2o_method() {
  std::vector<Parameter> parameters = keep_parameters({.sink = 0, .window = 32});
  parameters.push_back(
      {"rows",
       Parameter::Type::kInt,
       "64",
       "queries of each chunk whose attention is counted; more is more accurate and slower; 0: all",
       0,
       1e9,
       {}});
  return {
      {.name = "h2o",
       .summary = "keeps the tokens that have received most attention so far, per query that could attend to them",
       .paper = "H2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large Language Models, 2023",
       .needs = "any model",
       .time = "scores of `rows` queries of each chunk, and of each generated token, with all kept tokens",
       .memory = concat(kKeptMemory, "; 4 bytes per token and head"),
       .parameters = std::move(parameters),
       .capabilities = {.needs_host_pages = true, .works_on_recurrent = true}},
      [](const Values& values) {
        return make_budget_evictor(values, {}, std::make_unique<H2o>(values.integer("rows")));
      }};
}

}  // namespace fathom
