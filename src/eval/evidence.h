#pragma once

#include "base/json.h"
#include "eval/sample.h"

namespace fathom::eval {

/// Returns where a sample's evidence is in its prompt, on the two axes of long-context difficulty: how much is
/// needed and how hard it is to find (Is It Really Long Context if All You Need Is Retrieval?, 2024). "scope": the
/// share of the prompt's bytes that is evidence. "spans": the number of pieces. "spread": the standard deviation of
/// the pieces' beginnings as a share of the prompt. "overlap": the share of the question's words that occur in the
/// evidence. Returns an empty object for a sample without evidence.
Json evidence_axes(const Sample& sample);

}  // namespace fathom::eval
