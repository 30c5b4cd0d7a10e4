#include "attend/page_blocks.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "attend/key_scores.h"
#include "attend/token_set.h"
#include "base/common_parameters.h"
#include "base/error.h"

namespace fathom {

std::vector<Parameter> budget_parameters(const PageBudget& defaults) {
  return {budget_parameter({.value = std::to_string(defaults.tokens),
                            .min = 64,
                            .summary = "tokens visible to a query, sink and window included; more is closer to "
                                       "dense attention and slower"}),
          share_parameter({.value = "0"}), sink_parameter({.value = std::to_string(defaults.sink)}),
          window_parameter({.value = std::to_string(defaults.window), .min = 1, .old_names = {"local"}})};
}

PageBudget read_budget(const Values& values) {
  return {values.integer("budget"), values.number("share"), values.integer("sink"), values.integer("window")};
}

int read_page_block(std::string_view method, const Values& values, std::string_view name, int min_block) {
  const int64_t block_tokens = values.integer(name);
  std::string expected;
  for (int64_t p = min_block; p <= kPageTokens; p *= 2) {
    if (block_tokens == p) return static_cast<int>(block_tokens);
    expected += concat(p, p == kPageTokens ? "" : p == kPageTokens / 2 ? " or " : ", ");
  }
  fail_usage("attend method ", method, ": ", name, ": expected ", expected, " tokens, found ", block_tokens);
}

void select_page_blocks(const PageTable& table, const QueryBlock& block, const PageBudget& budget, int block_tokens,
                        const std::function<void(std::span<const uint32_t>, float*)>& score, Selection& selection) {
  const int64_t end = block.first + block.rows;  // tokens that the last row may attend to
  const auto share = static_cast<int64_t>(std::llround(budget.share * static_cast<double>(end)));
  const int64_t sink_end = first_token(table) + budget.sink;
  int64_t left = std::max(budget.tokens, share), all = 0;
  std::vector<uint32_t> candidates;
  TokenSet selected(table);
  for (uint32_t s = 0; s < table.size() && table[s].first < end; ++s) {
    const PageEntry& entry = table[s];
    if (entry.mask == 0) continue;
    const bool near = entry.first + entry.filled > block.first + 1 - budget.window;
    if (near || entry.first < sink_end || entry.filled < kPageTokens) {
      selected.add(s, entry.mask);
      left -= std::popcount(entry.mask);
    } else {
      candidates.push_back(s);
      all += std::popcount(entry.mask);
    }
  }
  if (all <= left) {
    for (const uint32_t s : candidates) selected.add(s, table[s].mask);
  } else if (left >= block_tokens) {
    const int page_blocks = kPageTokens / block_tokens;
    std::vector<float> scores(candidates.size() * page_blocks);
    score(candidates, scores.data());
    for (size_t i = 0; i < candidates.size(); ++i) {
      for (int p = 0; p < page_blocks; ++p) {
        float& value = scores[i * page_blocks + p];
        const bool visible = (table[candidates[i]].mask & page_bits(p * block_tokens, (p + 1) * block_tokens)) != 0;
        if (!visible || std::isnan(value)) value = -std::numeric_limits<float>::infinity();
      }
    }
    for (const int64_t i : top_scores(scores, left / block_tokens)) {
      const int64_t first = i % page_blocks * block_tokens;
      selected.add(candidates[i / page_blocks], page_bits(first, first + block_tokens));
    }
  }
  selected.add_to(selection);
}

std::vector<float> sampled_queries(const QueryBlock& block, int key_dim, int max_rows) {
  const int rows = std::min(block.rows, max_rows);
  const int64_t row_floats = static_cast<int64_t>(block.group) * key_dim;
  std::vector<float> queries(rows * row_floats);
  for (int r = 0; r < rows; ++r) {
    const int64_t row = static_cast<int64_t>(r + 1) * block.rows / rows - 1;
    std::copy_n(block.queries + row * row_floats, row_floats, queries.data() + r * row_floats);
  }
  return queries;
}

}  // namespace fathom
