#include "evict/methods.h"

namespace fathom {

EvictEntry none_method() {
  return {{.name = "none",
           .summary = "nothing is evicted",
           .exact = true,
           .needs = "any model",
           .time = "none",
           .memory = "O(n)"},
          [](const Values&) { return nullptr; }};
}

}  // namespace fathom
