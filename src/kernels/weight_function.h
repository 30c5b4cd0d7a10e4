#pragma once

#include <cstdint>

namespace fathom {

/// How one task of attention rotations scores into weights, where that is not w = e^score. Weights over parts of the
/// keys add up whatever the function, so that partial results merge by their log-sums.
struct WeightFunction {
  /// Replaces scores by ln of their weights (−infinity: none). scores: [count], count at most 64 and a multiple
  /// of 16. constants: of the form of attention; query: of one query, or null.
  using Apply = void (*)(const float* constants, const float* query, int64_t count, float* scores);

  Apply apply = nullptr;  // null: weights are e^score
  const float* constants = nullptr;
  const float* by_query = nullptr;  // [rows·group, stride], or null
  int64_t stride = 0;

  void operator()(int64_t query, int64_t count, float* scores) const {
    apply(constants, by_query ? by_query + query * stride : nullptr, count, scores);
  }
};

/// Constants of Kernels::softplus_weights, and its numbers of a query, found by a first pass over all its keys
/// without such numbers. Without them the weight is softplus(score) = ln(1 + e^score); with them max(0, tokens ·
/// softplus(score) / e^lse − offset)^power.
struct SoftplusConstants {
  float power = 0;
};
struct SoftplusQuery {
  float lse = 0;     // ln of the sum of softplus(score)
  float tokens = 0;  // of the sequence up to the query, itself included
  float offset = 0;
};

/// Constants of Kernels::capped_weights: the weight is e^(cap · tanh(score / cap)).
struct CapConstants {
  float cap = 0;
};

}  // namespace fathom
