#include "session/engine.h"

namespace fathom {

const MethodTable<CacheMethod>& cache_methods() {
  const auto method = [](const char* name, const char* summary, bool exact, const char* bytes, CacheMethod* make) {
    return MethodTable<CacheMethod>::Entry{{"", name, summary, "", exact, "any model", "none", bytes, {}}, make};
  };
  static const MethodTable<CacheMethod> table(
      "cache",
      {method("bf16", "keys and values as bfloat16: 2 bytes per number", true, "2 bytes per number",
              [](const Values&) { return PageFormat::kBF16; }),
       method("f32", "keys and values as float32: 4 bytes per number; for comparisons and tests", true,
              "4 bytes per number", [](const Values&) { return PageFormat::kF32; }),
       method("q8", "keys and values in 8 bits with one scale per token and 32 dimensions: about half of bf16",
              false, "17/16 bytes per number", [](const Values&) { return PageFormat::kQ8; }),
       method("q4", "keys and values in 4 bits with one scale per token and 32 dimensions: about a quarter of bf16",
              false, "9/16 bytes per number", [](const Values&) { return PageFormat::kQ4; })});
  return table;
}

}  // namespace fathom
