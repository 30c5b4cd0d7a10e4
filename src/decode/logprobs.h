#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace fathom {

/// A token and its log-probability (nats).
struct ScoredToken {
  int32_t token = 0;
  double logprob = 0;
};

/// A generated token with the probabilities that the model gave, before penalties, constraints and temperature.
struct TokenLogprobs {
  ScoredToken token;
  std::vector<ScoredToken> top;  // the most likely tokens, the most likely first
};

/// Returns the log-softmax of the logits at a token, and at the `top` most likely ones. Throws Error if a logit is
/// NaN or +∞.
TokenLogprobs token_logprobs(std::span<const float> logits, int32_t token, size_t top);

}  // namespace fathom
