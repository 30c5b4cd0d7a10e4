// Tokens that have drawn most attention so far stay.
#include <algorithm>
#include <vector>

#include "attend/key_scores.h"
#include "base/error.h"
#include "evict/methods.h"
#include "evict/stateful_scorer.h"
#include "evict/token_scoring.h"

namespace fathom {
namespace {

/// By where tokens were read. After a rewind the sums still hold what later tokens gave to those that stay.
struct LayerSums {
  std::vector<std::vector<float>> attention;  // [kv_heads, tokens], of all rows that were looked at
  std::vector<float> rows;                    // [tokens]: how many of them could see the token
  void rewind(int64_t tokens) {
    if (std::ssize(rows) <= tokens) return;
    rows.resize(tokens);
    for (std::vector<float>& sums : attention) sums.resize(tokens);
  }
};
using State = LayerStates<LayerSums>;

class H2o final : public LayeredScorer<LayerSums> {
 public:
  explicit H2o(int64_t rows) : rows_(rows) {}

  void listen(const LayerQueries& queries, State& state, ThreadPool& pool) const override {
    LayerSums& layer = state.layers.at(queries.layer);
    const PagedKv& kv = *queries.kv;
    const int64_t count = rows_ > 0 ? std::min(rows_, queries.rows) : queries.rows;
    std::vector<int64_t> tokens(count);  // evenly drawn, the last one among them
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

  void score(const LayerTokens& layer, const State& state, std::span<float> scores) const override {
    const LayerSums& sums = state.layers.at(layer.layer);
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
  /// Adds what these tokens attend to.
  static void add(const LayerQueries& queries, const std::vector<int64_t>& tokens, int head,
                  std::span<float> sums) {
    const std::vector<float> rotated = rotate(queries, tokens, head);
    const auto add_to = [&](std::span<float> to) {
      add_attention(*queries.kv, head, *queries.kernels, rotated, tokens, queries.group(), queries.scale, to);
    };
    const CompactedTokens& compacted = queries.kv->compacted(head);
    if (compacted.original_indices.empty()) return add_to(sums);
    std::vector<float> lying(sums.size());  // by where they lie
    add_to(lying);
    for (int64_t t = compacted.begin; t < std::ssize(sums); ++t) sums[compacted.original_index(t)] += lying[t];
  }

  /// [tokens, group, key_dim]
  static std::vector<float> rotate(const LayerQueries& queries, const std::vector<int64_t>& tokens, int head) {
    const int group = queries.group(), dim = queries.kv->shape().key_dim;
    std::vector<float> rotated(tokens.size() * group * dim), spare(dim);
    for (size_t i = 0; i < tokens.size() * group; ++i)
      rotate_query(queries, tokens[i / group] - queries.first, head * group + static_cast<int>(i) % group,
                   spare.data(), rotated.data() + i * dim);
    return rotated;
  }

  int64_t rows_;
};

}  // namespace

EvictEntry h2o_method() {
  std::vector<Parameter> parameters = keep_parameters({.sink = 0, .window = 32});
  parameters.push_back(
      {"rows", Parameter::Type::kInt, "64", "rows of a chunk whose attention is looked at; 0: all", 0, 1e9, {}});
  return {
      {.name = "h2o",
       .summary = "keeps what has drawn most attention, as a mean over the rows that could see it",
       .paper = "H2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large Language Models, 2023",
       .needs = "any model",
       .time = "scores of `rows` rows of each chunk, and of each generated token, with all that is kept",
       .memory = concat(kKeptMemory, "; 4 bytes per token and head"),
       .parameters = std::move(parameters),
       .capabilities = {.needs_host_pages = true, .works_on_recurrent = true}},
      [](const Values& values) { return make_keeping(values, {}, std::make_unique<H2o>(values.integer("rows"))); }};
}

}  // namespace fathom
