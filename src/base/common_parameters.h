#pragma once

#include <string>
#include <vector>

#include "base/spec.h"

namespace fathom {

/// The properties of a common parameter that differ between methods.
struct ParameterOverrides {
  std::string value{};  // default; empty: no default
  double min = 0, max = 1e12;
  std::string summary{};  // empty: the common summary
  std::vector<std::string> old_names{};
};

// Parameters that many methods share. A name has the same meaning in every method.

/// `sink`: number of first tokens of a sequence that stay visible.
Parameter sink_parameter(ParameterOverrides terms);
/// `window`: number of newest tokens, which are always visible.
Parameter window_parameter(ParameterOverrides terms);
/// `budget`: total number of tokens that are visible, or kept.
Parameter budget_parameter(ParameterOverrides terms);
/// `share`: the budget as a share of all tokens, in [0, 1] or the narrower range in `terms`.
Parameter share_parameter(ParameterOverrides terms);
/// `block`: number of consecutive tokens that are selected together.
Parameter block_parameter(ParameterOverrides terms);
/// `topk`: number of best items (blocks, unless the summary names others) that are selected.
Parameter topk_parameter(ParameterOverrides terms);
/// `positions`: the positions given to selected or kept tokens: "original" (where they were read), "clamped" (no
/// farther away than a limit) or "compacted" (consecutive, without gaps). choices: those the method supports.
/// Accepts the old names `place` and `places` and the old values.
Parameter positions_parameter(std::string value, std::vector<std::string> choices, std::string summary);
/// `chunk`: number of tokens of a text that are read together, or share one selection.
Parameter chunk_parameter(ParameterOverrides terms);

}  // namespace fathom
