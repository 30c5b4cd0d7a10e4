#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "decode/draft.h"

namespace fathom {

/// The parameters of forced_source: `accept` and `length`.
std::vector<Parameter> forced_parameters();

/// Returns a source for measurements: its drafts are chains of `length` tokens that are accepted at a known rate. A
/// token is right with the probability `accept` if the tokens of the chain before it are. continuation: the tokens
/// that plain decoding generates after the prompt. vocabulary: number of tokens, at least 2. The random numbers
/// depend on the position in the text alone.
std::unique_ptr<DraftSource> forced_source(const Values& values, std::vector<int32_t> continuation,
                                           int64_t vocabulary);

}  // namespace fathom
