// Keeps the tokens whose keys are least similar to the mean key.
#include <cmath>
#include <vector>

#include "attend/key_scores.h"
#include "attend/token_set.h"
#include "evict/methods.h"
#include "evict/token_scoring.h"

namespace fathom {
namespace {

class KeyDiff final : public Scorer {
 public:
  bool accepts_weights() const override { return false; }
  void score(const LayerTokens& layer, std::span<float> scores) const override {
    const size_t dim = layer.kv.shape().key_dim;
    layer.work.pool.parallel_for(layer.kv.heads(), [&](size_t h, int) {
      const int head = static_cast<int>(h);
      std::vector<float> mean(dim);  // of the keys scaled to length 1, up to a positive factor
      each_key(layer, head, [&](int64_t, const float* key) {
        const float length = std::sqrt(dot(key, key, static_cast<int>(dim)));
        for (size_t d = 0; length > 0 && d < dim; ++d) mean[d] += key[d] / length;
      });
      float* out = scores.data() + h * layer.kv.tokens();
      each_key(layer, head, [&](int64_t token, const float* key) {
        out[token] = -static_cast<float>(cosine_of(std::span(key, dim), mean));
      });
    });
  }
};

}  // namespace

EvictEntry keydiff_method() {
  return {{.name = "keydiff",
           .summary = "keeps the tokens whose keys differ most from the mean key",
           .paper = "KeyDiff: Key Similarity-Based KV Cache Eviction for Long-Context LLM Inference in "
                    "Resource-Constrained Environments, 2025",
           .needs = "any model",
           .time = "O(kept) per eviction",
           .memory = kKeptMemory,
           .parameters = keep_parameters({.window = 32}),
           .capabilities = {.needs_host_pages = true, .works_on_recurrent = true}},
          [](const Values& values) { return make_budget_evictor(values, {}, std::make_unique<KeyDiff>()); }};
}

}  // namespace fathom
