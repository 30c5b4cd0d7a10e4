// Keeps the tokens whose keys have the smallest norm, because these tend to receive most attention.
#include <cmath>

#include "attend/token_set.h"
#include "evict/methods.h"
#include "evict/token_scoring.h"

namespace fathom {
namespace {

class KNorm final : public Scorer {
 public:
  bool accepts_weights() const override { return false; }
  void score(const LayerTokens& layer, std::span<float> scores) const override {
    const int dim = layer.kv.shape().key_dim;
    layer.work.pool.parallel_for(layer.kv.heads(), [&](size_t h, int) {
      float* out = scores.data() + h * layer.kv.tokens();
      each_key(layer, static_cast<int>(h),
               [&](int64_t token, const float* key) { out[token] = -std::sqrt(dot(key, key, dim)); });
    });
  }
};

}  // namespace

EvictEntry knorm_method() {
  return {{.name = "knorm",
           .summary = "keeps the tokens whose keys have the smallest norm",
           .paper = "A Simple and Effective L2 Norm-Based Strategy for KV Cache Compression, 2024",
           .needs = "any model",
           .time = "O(kept) per eviction",
           .memory = kKeptMemory,
           .parameters = keep_parameters({.window = 32}),
           .capabilities = {.needs_host_pages = true, .works_on_recurrent = true}},
          [](const Values& values) { return make_budget_evictor(values, {}, std::make_unique<KNorm>()); }};
}

}  // namespace fathom
