#include "decode/logprobs.h"

#include "decode/candidates.h"

namespace fathom {

TokenLogprobs token_logprobs(std::span<const float> logits, int32_t token, size_t top) {
  Candidates candidates;
  candidates.assign(logits);
  const double log_sum = candidates.log_sum();
  TokenLogprobs result{{token, logits[token] - log_sum}, {}};
  if (top == 0) return result;
  for (const Candidate& candidate : candidates.best(top))
    result.top.push_back({candidate.id, candidate.logit - log_sum});
  return result;
}

}  // namespace fathom
