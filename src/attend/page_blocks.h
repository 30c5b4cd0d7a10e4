#pragma once

#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "attend/queries.h"
#include "attend/selection.h"
#include "base/spec.h"

namespace fathom {

/// How many tokens a block of queries sees at most, and which in any case.
struct PageBudget {
  int64_t tokens = 0;  // those always seen included; each row's own page and the window may exceed it
  double share = 0;    // at least this share of what there is; 0: `tokens` alone
  int64_t sink = 0;    // first tokens of the sequence, always seen
  int64_t window = 0;  // newest tokens before each row, its own included, always visible
};
/// The parameters budget, share, sink and window of a method, with these defaults.
std::vector<Parameter> budget_parameters(const PageBudget& defaults);
PageBudget read_budget(const Values& values);

/// How many tokens of a page are chosen together, a parameter of a method: a power of two from `least` to 64.
/// Throws Error (usage) that lists them.
int read_page_block(std::string_view method, const Values& values, std::string_view name, int least);

/// Selects the pages with the first `sink` and the newest `window` tokens, and of the others those parts of `part`
/// tokens (16, 32 or 64) that score highest until the budget is used up; all if it is large enough. Pages are at
/// their places. score(entries, scores): of all 64 / part parts of each of these full pages, whose entries grow; of
/// equal ones the newest is taken.
void select_page_blocks(const PageTable& table, const QueryBlock& block, const PageBudget& budget, int part,
                        const std::function<void(std::span<const uint32_t> entries, float* scores)>& score,
                        Selection& selection);

/// The queries of at most `most` rows of a block, evenly drawn, the last one among them, rotated by their
/// positions: [rows, group, key_dim].
std::vector<float> sampled_queries(const QueryBlock& block, int key_dim, int most);

}  // namespace fathom
