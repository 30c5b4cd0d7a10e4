#include "evict/evictor.h"

namespace fathom {

const MethodTable<EvictMethod>& evict_methods() {
  static const MethodTable<EvictMethod> table(
      "evict", {{{.name = "none",
                  .summary = "nothing is dropped",
                  .exact = true,
                  .needs = "any model",
                  .time = "none",
                  .memory = "O(n)"},
                 [](const Values&) -> std::unique_ptr<Evictor> { return nullptr; }}});
  return table;
}

}  // namespace fathom
