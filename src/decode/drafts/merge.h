#pragma once

#include <memory>
#include <span>
#include <vector>

#include "decode/draft.h"

namespace fathom {

/// Returns the union of drafts as prefix trees, as a kFixed draft: the `nodes` nodes with the largest reach, which
/// is the product of the estimates on the path to a node; a node is kept only with its ancestors. Nodes with a
/// reach below min_reach are removed. A node that several drafts propose gets the highest of their estimates, and
/// the index of that draft in Draft::sources. Estimates that are missing count as 0.5, those outside (0, 1] are
/// clamped.
Draft unite(std::span<const Draft> drafts, int nodes, float min_reach = 0);

/// Returns a source that proposes with each of `sources` and unites their drafts. It corrects the estimates of each
/// source at each depth by the share that would have been accepted, so a source that is always wrong gets no
/// nodes. Drafts of other kinds than kFixed are verified as kFixed, which is exact too. Throws Error (usage) for no
/// sources or more than 255.
std::unique_ptr<DraftSource> merge_sources(std::vector<std::unique_ptr<DraftSource>> sources);

}  // namespace fathom
