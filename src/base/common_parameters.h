#pragma once

#include <string>
#include <vector>

#include "base/spec.h"

namespace fathom {

/// What methods differ in that have one of the parameters below.
struct ParameterOverrides {
  std::string value{};  // the default; empty: none
  double min = 0, max = 1e12;
  std::string summary{};  // empty: the common one
  std::vector<std::string> old_names{};
};

// The parameters that many methods have: the same name means the same thing in all of them.

/// First tokens of a sequence, which stay visible.
Parameter sink_parameter(ParameterOverrides terms);
/// Newest tokens, which are always visible.
Parameter window_parameter(ParameterOverrides terms);
/// Tokens that are visible, or kept, in all.
Parameter budget_parameter(ParameterOverrides terms);
/// The same as a share of all tokens. terms: from 0 to 1 unless they say otherwise.
Parameter share_parameter(ParameterOverrides terms);
/// Tokens that are chosen together or not at all.
Parameter block_parameter(ParameterOverrides terms);
/// How many of the best items (blocks, unless the summary says otherwise) are chosen.
Parameter topk_parameter(ParameterOverrides terms);
/// The positions that selected or kept tokens take: "original" (those they were read at), "clamped" (none farther
/// away than a limit) or "compacted" (consecutive, without gaps). choices: those the method has. Replaces `place`,
/// `places`.
Parameter positions_parameter(std::string value, std::vector<std::string> choices, std::string summary);
/// Tokens of a text that are read, or choose, together.
Parameter chunk_parameter(ParameterOverrides terms);

}  // namespace fathom
