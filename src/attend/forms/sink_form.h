#pragma once

#include <vector>

#include "attend/attention_form.h"

namespace fathom {

/// Softmax with one sink score per query head, which is part of the normalising sum but belongs to no token
/// ("gpt-oss-120b & gpt-oss-20b Model Card", 2025). The result of the softmax without the sink is multiplied by
/// sigmoid(lse − sink).
class SinkForm final : public AttentionForm {
 public:
  /// sinks: [heads], query heads.
  explicit SinkForm(std::vector<float> sinks) : sinks_(std::move(sinks)) {}
  void finish(int head, int value_dim, float* out, float& lse) const override;
  bool has_finish() const override { return true; }
  bool is_softmax() const override { return false; }

 private:
  std::vector<float> sinks_;
};

}  // namespace fathom
