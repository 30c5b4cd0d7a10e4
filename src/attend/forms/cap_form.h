#pragma once

#include "attend/attention_form.h"
#include "kernels/weight_function.h"

namespace fathom {

/// Softmax of soft-capped scores, cap · tanh(score / cap) ("Gemma 2: Improving Open Language Models at a Practical
/// Size", 2024).
class CapForm final : public AttentionForm {
 public:
  explicit CapForm(float cap) : constants_{cap} {}
  WeightFunction weights(const Kernels& kernels, const AttentionBlock& /*block*/) const override {
    return {kernels.capped_weights, &constants_.cap, nullptr, 0};
  }
  bool is_softmax() const override { return false; }

 private:
  CapConstants constants_;
};

}  // namespace fathom
