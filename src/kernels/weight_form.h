#pragma once

#include <cstdint>

namespace fathom {

/// How an attention turns scores into weights, which are then divided by their sum. Softplus: "Softplus Attention
/// with Re-weighting Boosts Length Extrapolation in Large Language Models", 2025.
struct ScoreForm {
  bool softplus = false;  // ln(1 + e^score); otherwise e^score
  float power = 0;        // of the re-weighting that follows softplus; 0: none
  float offset = 1;       // of the re-weighting
  bool reweights() const { return softplus && power > 0; }
};

/// The first rows of a sequence are re-weighted with offset 0: they see too few keys for any to stand out.
inline constexpr int64_t kRowsWithoutOffset = 3;

/// Of one query, found by a first pass over all its keys with weights softplus(score).
struct Reweighting {
  float lse = 0;     // ln of the sum of those weights
  float tokens = 0;  // of the sequence up to the query, itself included
  float offset = 0;
};

/// The form of the weights in one task of attention. Weights over parts of the keys add up whatever the form, so
/// that partial results merge by their log-sums.
struct WeightForm {
  bool softplus = false;
  // Null, or of each query: weight = max(0, tokens · softplus(score) / e^lse − offset)^power.
  const Reweighting* reweighting = nullptr;
  float power = 0;
};

/// ln of the weight of a score; −infinity for none. The plain version of what kernels do.
double log_weight(const WeightForm& form, int64_t query, double score);

}  // namespace fathom
