#pragma once

#include <vector>

#include "attend/context.h"

namespace fathom {

/// ‖W_o v‖₁ of the tokens of one layer, computed once for each: a value does not change.
class ValueNorms {
 public:
  /// Adds those of the tokens read since the last time.
  void add(const PagedKv& kv, int layer, const OutputNorms& norms, ThreadPool& pool);
  void rewind(int64_t tokens);
  /// By where tokens were read; of those that were hidden when added 0.
  float of(int head, int64_t token) const { return heads_[head][token]; }

 private:
  std::vector<std::vector<float>> heads_;  // [kv_heads, tokens]
};

}  // namespace fathom
