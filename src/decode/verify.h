#pragma once

#include <functional>
#include <span>
#include <vector>

#include "decode/draft.h"

namespace fathom {

/// Receives the next token of the text; returns whether the text continues.
using EmitToken = std::function<bool(int32_t token)>;

/// Walks down a draft whose rows the model has read, and emits tokens that are distributed exactly as those of
/// plain sampling: accepted nodes, then one more token, unless `emit` ends the text earlier.
/// - kFixed: the sampler draws the token of each position with its own random number; a child that holds it is
///   accepted. The tokens are those of plain sampling.
/// - kIndependent: children are tested against the residual norm((p − q)+), with q unchanged (speculative sampling
///   with several candidates). Equal in distribution to plain sampling.
/// - kWithoutReplacement: as kIndependent, but q is renormalised without each rejected child (recursive rejection
///   sampling).
/// With a greedy sampler all kinds give the tokens of plain decoding.
/// history: all tokens up to the pending one; emitted tokens are appended, so penalties apply along the path.
/// position: of the token after the pending one. Returns the accepted nodes, from a root downwards.
/// Source: Leviathan et al. 2023; Jeon et al. 2024 (RSD).
std::vector<int> verify(const Draft& draft, const NodeLogits& logits, Sampler& sampler,
                        std::vector<int32_t>& history, int64_t position, const EmitToken& emit);

}  // namespace fathom
