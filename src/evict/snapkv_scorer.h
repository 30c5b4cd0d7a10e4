#pragma once

#include "evict/lane_tokens.h"

namespace fathom {

/// The mean attention that the newest `window` queries give, pooled over `pool` neighbours that are there.
class SnapKvScorer : public Scorer {
 public:
  SnapKvScorer(int64_t window, int64_t pool);
  void attach(const AttendContext& context) override { layers_ = context.layers; }
  std::unique_ptr<SequenceState> new_state() const override;
  void listen(const LayerQueries& queries, ThreadPool& pool) const override;
  void score(const LayerTokens& layer, std::span<float> scores) const override;

 private:
  int64_t window_, pool_;
  int layers_ = 0;
};

/// The parameters window and pool besides those of keep_parameters.
std::vector<Parameter> snapkv_parameters();
inline constexpr int64_t kSnapKvWindow = 64;

}  // namespace fathom
