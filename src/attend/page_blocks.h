#pragma once

#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "attend/queries.h"
#include "attend/selection.h"
#include "base/spec.h"

namespace fathom {

/// The budget of a block of queries, and the tokens that are always visible.
struct PageBudget {
  /// Attended tokens, including the always visible ones. The window and each row's own page may exceed it.
  int64_t tokens = 0;
  double share = 0;    // minimum budget as a share of all tokens; 0: none
  int64_t sink = 0;    // first tokens of the sequence, always visible
  int64_t window = 0;  // newest tokens up to each row, the row included, always visible
};
/// Returns the parameters budget, share, sink and window of a method, with these defaults.
std::vector<Parameter> budget_parameters(const PageBudget& defaults);
/// Reads the parameters of budget_parameters().
PageBudget read_budget(const Values& values);

/// Reads a parameter for the number of tokens of a page that are selected together: a power of two from `min_block`
/// to 64. Throws Error (usage) with the allowed values for any other value.
int read_page_block(std::string_view method, const Values& values, std::string_view name, int min_block);

/// Selects the pages with the first `sink` and the newest `window` tokens and all pages that are not full. Of the
/// other pages it selects the blocks of `block_tokens` tokens with the highest scores until the budget is used up,
/// or all blocks if the budget is large enough. Pages keep their positions. score(entries, scores) computes the
/// scores of all 64 / block_tokens blocks of each of these full pages; entries are in increasing order. Among equal
/// scores the newest block is selected.
void select_page_blocks(const PageTable& table, const QueryBlock& block, const PageBudget& budget, int block_tokens,
                        const std::function<void(std::span<const uint32_t> entries, float* scores)>& score,
                        Selection& selection);

/// Returns the queries of at most `max_rows` evenly spaced rows of a block, including the last row, rotated by
/// their positions: [rows, group, key_dim].
std::vector<float> sampled_queries(const QueryBlock& block, int key_dim, int max_rows);

}  // namespace fathom
