// The first tokens and the newest: what every other scorer has to beat.
#include <numeric>

#include "evict/methods.h"
#include "evict/scorer.h"

namespace fathom {
namespace {

class Streaming final : public Scorer {
 public:
  bool has_weights() const override { return false; }
  void score(const LayerTokens& layer, std::span<float> scores) const override {
    const int64_t tokens = layer.kv.tokens();
    for (int h = 0; h < layer.kv.heads(); ++h) {
      const std::span<float> own = scores.subspan(h * tokens, tokens);
      std::iota(own.begin(), own.end(), -static_cast<float>(tokens));  // exact where it matters: at the end
    }
  }
};

}  // namespace

EvictEntry streaming_method() {
  return {{.name = "streaming",
           .summary = "keeps the first tokens and the newest",
           .paper = "Efficient Streaming Language Models with Attention Sinks, 2023 (as there: positions=compacted)",
           .needs = "any model",
           .time = "O(kept) per cut",
           .memory = kKeptMemory,
           .parameters = keep_parameters({}),
           .capabilities = {.needs_host_pages = true, .works_on_recurrent = true}},
          [](const Values& values) { return make_keeping(values, {}, std::make_unique<Streaming>()); }};
}

}  // namespace fathom
