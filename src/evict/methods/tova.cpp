// Keeps the tokens that the newest token attends to most, the same ones in all heads of a layer.
#include <algorithm>

#include "evict/methods.h"
#include "evict/stateful_scorer.h"
#include "evict/token_scoring.h"

namespace fathom {
namespace {

class Tova final : public LayeredScorer<QueryTail, TailScale> {
 public:
  void listen(const LayerQueries& queries, QueryTails& tails, ThreadPool&) const override {
    tails.layers.at(queries.layer).add(queries, 1);
    tails.common.scale = queries.scale;
  }
  void score(const LayerTokens& layer, const QueryTails& tails, std::span<float> scores) const override {
    mean_tail_attention(layer, tails, 1, scores);
    const int64_t tokens = layer.kv.tokens();
    const std::span<float> first = scores.first(tokens);
    for (int h = 1; h < layer.kv.heads(); ++h)
      layer.work.kernels.add(first.data(), scores.data() + h * tokens, tokens);
    layer.work.kernels.scale(first.data(), 1 / static_cast<float>(layer.kv.heads()), tokens);
    for (int h = 1; h < layer.kv.heads(); ++h) std::ranges::copy(first, scores.data() + h * tokens);
  }
};

}  // namespace

EvictEntry tova_method() {
  return {{.name = "tova",
           .summary = "keeps the tokens that the newest token attends to most, averaged over the heads of a layer",
           .paper = "Transformers are Multi-State RNNs, 2024",
           .needs = "any model",
           .time = "O(kept) per eviction",
           .memory = kKeptMemory,
           .parameters = keep_parameters({.sink = 0}),
           .capabilities = {.needs_host_pages = true, .works_on_recurrent = true}},
          [](const Values& values) { return make_budget_evictor(values, {.sink = 0}, std::make_unique<Tova>()); }};
}

}  // namespace fathom
