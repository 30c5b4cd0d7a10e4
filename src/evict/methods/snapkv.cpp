// Keeps what the end of the prompt attends to.
#include "evict/methods.h"
#include "evict/snapkv_scorer.h"

namespace fathom {

EvictEntry snapkv_method() {
  return {{.name = "snapkv",
           .summary = "keeps what the newest queries attend to, and its neighbours",
           .paper = "SnapKV: LLM Knows What You are Looking for Before Generation, 2024",
           .needs = "any model",
           .time = "O(queries · kept) per cut",
           .memory = kKeptMemory,
           .parameters = snapkv_parameters(),
           .capabilities = {.needs_host_pages = true, .works_on_recurrent = true}},
          [](const Values& values) {
            return make_keeping(values, {},
                                std::make_unique<SnapKvScorer>(values.integer("queries"), values.integer("pool")));
          }};
}

}  // namespace fathom
