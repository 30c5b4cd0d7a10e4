#pragma once

#include "attend/attention_form.h"
#include "kernels/weight_function.h"

namespace fathom {

/// Softplus attention with re-weighting ("Softplus Attention with Re-weighting Boosts Length Extrapolation in Large
/// Language Models", 2025). Row i may attend to i keys. Its scores are multiplied by ln i; its weights are ln(1 +
/// e^score), divided by their sum. If the power is not 0, a second pass replaces them by max(0, i · weight −
/// offset)^power. The offset is 0 in the first three rows.
class SoftplusForm final : public AttentionForm {
 public:
  /// The first rows, which attend to too few keys for an offset; their offset is 0.
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
