#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "decode/draft.h"

namespace fathom {

/// Returns the BM25 score of each chunk of `tokens` for the tokens of `query`. The last chunk can be shorter than
/// `chunk` tokens. Source: Okapi at TREC-3, 1994; k1 = 1.2, b = 0.75.
std::vector<double> chunk_scores(std::span<const int32_t> tokens, int64_t chunk, std::span<const int32_t> query);

/// Returns the indices of the `count` best chunks in ascending order. Equal scores: the earlier chunk.
std::vector<int64_t> best_chunks(std::span<const double> scores, int64_t count);

/// A token counts as likely for the drafter from this share of its largest probability.
inline constexpr float kLikelyShare = 0.1f;

/// Returns target logits that are pulled toward a drafter: z + eta · (q − p) for tokens with q ≥ kLikelyShare · max
/// q, p = softmax(z); the other logits are unchanged. Sampling from them is not lossless, except with eta = 0. The
/// verifier gives the result to the sampler instead of the logits z; the emitted tokens then have exactly the
/// distribution that the sampler makes of them. Source: Long-Context Inference with Retrieval-Augmented Speculative
/// Decoding (RAPID), 2025, with the residual norm((p̂ − q)+).
std::vector<float> enriched_logits(std::span<const float> logits, std::span<const TokenProbability> q, double eta);

}  // namespace fathom
