#pragma once

#include "attend/attention_form.h"
#include "kernels/weight_function.h"

namespace fathom {

/// Softplus attention with re-weighting ("Softplus Attention with Re-weighting Boosts Length Extrapolation in Large
/// Language Models", 2025). Scores of row i, which may see i keys, are multiplied with ln i; weights are ln(1 +
/// e^score), divided by their sum. If the power is not 0, a second pass makes them max(0, i·weight − offset)^power.
/// The offset is 0 in the first three rows.
class SoftplusForm final : public AttentionForm {
 public:
  /// Rows that see too few keys for any to stand out: their offset is 0.
  static constexpr int64_t kRowsWithoutOffset = 3;

  SoftplusForm(float power, float offset) : constants_{power}, offset_(offset) {}

  float row_scale(int64_t tokens) const override;
  WeightFunction weights(const Kernels& kernels, const AttentionBlock& block) const override;
  bool has_second_pass() const override { return constants_.power > 0; }
  bool is_softmax() const override { return false; }
  void prepare_second_pass(AttentionBlock& block, const float* lse) const override;

 private:
  SoftplusConstants constants_;
  float offset_;
};

}  // namespace fathom
