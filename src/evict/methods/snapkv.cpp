// Keeps the tokens that the newest queries attend to most.
#include "evict/methods.h"
#include "evict/snapkv_scorer.h"

namespace fathom {

EvictEntry snapkv_method() {
  return {{.name = "snapkv",
           .summary = "keeps the tokens that the newest queries attend to most, together with their neighbours",
           .paper = "SnapKV: LLM Knows What You are Looking for Before Generation, 2024",
           .needs = "any model",
           .time = "O(queries · kept) per eviction",
           .memory = kKeptMemory,
           .parameters = snapkv_parameters(),
           .capabilities = {.needs_host_pages = true, .works_on_recurrent = true}},
          [](const Values& values) {
            return make_budget_evictor(
                values, {}, std::make_unique<SnapKvScorer>(values.integer("queries"), values.integer("pool")));
          }};
}

}  // namespace fathom
