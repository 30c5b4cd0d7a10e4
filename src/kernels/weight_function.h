#pragma once

#include <cstdint>

namespace fathom {

/// A function from attention scores to weights, for weights other than e^score. For any function the weights of
/// disjoint parts of the keys add up, so partial results are merged by the logarithms of their sums.
struct WeightFunction {
  /// Replaces scores by the logarithms of their weights (−infinity for weight 0). scores: [count]; count is at most
  /// 64 and a multiple of the table's vector lanes. constants: parameters of the function; query: parameters of one
  /// query, or null.
  using Apply = void (*)(const float* constants, const float* query, int64_t count, float* scores);

  Apply apply = nullptr;  // null: weights are e^score
  const float* constants = nullptr;
  const float* by_query = nullptr;  // [rows·group, stride], or null
  int64_t stride = 0;

  void operator()(int64_t query, int64_t count, float* scores) const {
    apply(constants, by_query ? by_query + query * stride : nullptr, count, scores);
  }
};

/// Constants and query parameters of Kernels::softplus_weights. Without query parameters the weight is
/// softplus(score) = ln(1 + e^score). A first pass over all keys with this weight gives `lse`. With query
/// parameters the weight is max(0, tokens · softplus(score) / e^lse − offset)^power.
struct SoftplusConstants {
  float power = 0;
};
struct SoftplusQuery {
  float lse = 0;     // ln of the sum of softplus(score)
  float tokens = 0;  // number of tokens of the sequence up to and including the query
  float offset = 0;
};

/// Constants of Kernels::capped_weights: the weight is e^(cap · tanh(score / cap)).
struct CapConstants {
  float cap = 0;
};

}  // namespace fathom
