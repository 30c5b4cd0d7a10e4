#include "evict/methods.h"

namespace fathom {

EvictEntry none_method() {
  return {
      {.name = "none",
       .summary = "nothing is evicted",
       .exact = true,
       .needs = "any model",
       .time = "none",
       .memory = "O(n)",
       .capabilities = {.works_with_compacted = true, .works_with_landmarks = true, .works_on_recurrent = true}},
      [](const Values&) { return nullptr; }};
}

}  // namespace fathom
