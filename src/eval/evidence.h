#pragma once

#include "base/json.h"
#include "eval/sample.h"

namespace fathom::eval {

/// How a sample's evidence lies in its prompt, along the two axes of long-context difficulty, how much is needed
/// and how hard it is to find (Is It Really Long Context if All You Need Is Retrieval?, 2024): "scope", the share
/// of the prompt that is evidence; "spans", in how many pieces; "spread", the standard deviation of where they
/// begin as a share of the prompt; "overlap", the share of the question's words that the evidence holds. Empty
/// without evidence.
Json evidence_axes(const Sample& sample);

}  // namespace fathom::eval
