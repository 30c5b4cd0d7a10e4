#pragma once

#include <vector>

#include "attend/attention_form.h"

namespace fathom {

/// Softmax with a sink per query head: a score of no token, whose weight counts in the sum alone ("gpt-oss-120b &
/// gpt-oss-20b Model Card", 2025). The result of softmax without it is multiplied with sigmoid(lse − sink).
class SinkForm final : public AttentionForm {
 public:
  /// sinks: [heads]
  explicit SinkForm(std::vector<float> sinks) : sinks_(std::move(sinks)) {}
  void finish(int head, int value_dim, float* out, float& lse) const override;
  bool has_finish() const override { return true; }
  bool is_softmax() const override { return false; }

 private:
  std::vector<float> sinks_;
};

}  // namespace fathom
