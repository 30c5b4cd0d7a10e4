#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "decode/constraint.h"
#include "decode/search.h"
#include "session/session.h"

namespace fathom {

struct BeamOptions {
  int width = 15;                                       // continuations kept per step
  int64_t length = 10;                                  // most tokens
  bool keep_partial = false;                            // also return the continuations kept at each step
  std::function<void(int64_t tokens_read)> progress{};  // called after each step; may throw to stop
};

/// Returns the likeliest continuations of a session that has logits, best first: of each step the `width` most
/// likely, read in one batch. Log-probabilities are those of the model without the constraint; that of an
/// end is the sum over the end-of-generation tokens, and 1 if the constraint forces it. Without keep_partial,
/// returns at most `width` continuations that ended or have `length` tokens; with it, also all that were kept on
/// the way. The session is unchanged. constraint: null: none. Throws Error (out of memory, interrupted).
std::vector<Hypothesis> constrained_beam(const Session& session, const Tokenizer& tokenizer,
                                         const Constraint* constraint, const BeamOptions& options);

}  // namespace fathom
