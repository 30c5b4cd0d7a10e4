#include "attend/forms/softplus_form.h"

#include <cmath>

namespace fathom {

float SoftplusForm::row_scale(int64_t tokens) const { return std::log(static_cast<float>(tokens)); }

WeightFunction SoftplusForm::weights(const Kernels& kernels, const AttentionBlock& block) const {
  constexpr int64_t kStride = sizeof(SoftplusQuery) / sizeof(float);
  return {kernels.softplus_weights, &constants_.power, block.second_pass ? block.by_query.data() : nullptr,
          kStride};
}

void SoftplusForm::prepare_second_pass(AttentionBlock& block, const float* lse) const {
  block.by_query.clear();
  for (int q = 0; q < block.queries_count(); ++q) {
    const int64_t tokens = block.tokens[q / block.group] + 1;
    const SoftplusQuery row{lse[q], static_cast<float>(tokens), tokens > kRowsWithoutOffset ? offset_ : 0.0f};
    block.by_query.insert(block.by_query.end(), {row.lse, row.tokens, row.offset});
  }
}

}  // namespace fathom
