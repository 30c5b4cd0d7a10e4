// Keeps the first tokens and the newest ones: the baseline of all other scorers.
#include <numeric>

#include "evict/methods.h"
#include "evict/scorer.h"

namespace fathom {
namespace {

class Streaming final : public Scorer {
 public:
  bool accepts_weights() const override { return false; }
  void score(const LayerTokens& layer, std::span<float> scores) const override {
    const int64_t tokens = layer.kv.tokens();
    for (int h = 0; h < layer.kv.heads(); ++h) {
      const std::span<float> head_scores = scores.subspan(h * tokens, tokens);
      std::iota(head_scores.begin(), head_scores.end(), -static_cast<float>(tokens));  // exact up to 2^24 tokens
    }
  }
};

}  // namespace

EvictEntry streaming_method() {
  return {
      {.name = "streaming",
       .summary = "keeps the first tokens and the newest ones (StreamingLLM)",
       .paper =
           "Efficient Streaming Language Models with Attention Sinks, 2023 (as in the paper: positions=compacted)",
       .needs = "any model",
       .time = "O(kept) per eviction",
       .memory = kKeptMemory,
       .parameters = keep_parameters({}),
       .capabilities = {.needs_host_pages = true, .works_on_recurrent = true}},
      [](const Values& values) { return make_budget_evictor(values, {}, std::make_unique<Streaming>()); }};
}

}  // namespace fathom
