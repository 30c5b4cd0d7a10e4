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
  return {budget_parameter({.value = std::to_string(defaults.tokens), .min = 64}), share_parameter({.value = "0"}),
          sink_parameter({.value = std::to_string(defaults.sink)}),
          window_parameter({.value = std::to_string(defaults.window), .min = 1, .old_names = {"local"}})};
}

PageBudget read_budget(const Values& values) {
  return {values.integer("budget"), values.number("share"), values.integer("sink"), values.integer("window")};
}

int read_page_block(std::string_view method, const Values& values, std::string_view name, int least) {
  const int64_t part = values.integer(name);
  std::string expected;
  for (int64_t p = least; p <= kPageTokens; p *= 2) {
    if (part == p) return static_cast<int>(part);
    expected += concat(p, p == kPageTokens ? "" : p == kPageTokens / 2 ? " or " : ", ");
  }
  fail_usage("attend method ", method, ": ", name, ": expected ", expected, " tokens, found ", part);
}

void select_page_blocks(const PageTable& table, const QueryBlock& block, const PageBudget& budget, int part,
                        const std::function<void(std::span<const uint32_t>, float*)>& score, Selection& selection) {
  const int64_t end = block.first + block.rows;  // tokens that the last row sees
  const auto share = static_cast<int64_t>(std::llround(budget.share * static_cast<double>(end)));
  const int64_t sink_end = first_token(table) + budget.sink;
  int64_t left = std::max(budget.tokens, share), all = 0;
  std::vector<uint32_t> others;
  TokenSet choice(table);
  for (uint32_t s = 0; s < table.size() && table[s].first < end; ++s) {
    const PageEntry& entry = table[s];
    if (entry.mask == 0) continue;
    const bool near = entry.first + entry.filled > block.first + 1 - budget.window;
    if (near || entry.first < sink_end || entry.filled < kPageTokens) {
      choice.add(s, entry.mask);
      left -= std::popcount(entry.mask);
    } else {
      others.push_back(s);
      all += std::popcount(entry.mask);
    }
  }
  if (all <= left) {
    for (const uint32_t s : others) choice.add(s, table[s].mask);
  } else if (left >= part) {
    const int parts = kPageTokens / part;
    std::vector<float> scores(others.size() * parts);
    score(others, scores.data());
    for (size_t i = 0; i < others.size(); ++i) {
      for (int p = 0; p < parts; ++p) {
        float& value = scores[i * parts + p];
        const bool seen = (table[others[i]].mask & page_bits(p * part, (p + 1) * part)) != 0;
        if (!seen || std::isnan(value)) value = -std::numeric_limits<float>::infinity();
      }
    }
    for (const int64_t i : top_scores(scores, left / part)) {
      const int64_t first = i % parts * part;
      choice.add(others[i / parts], page_bits(first, first + part));
    }
  }
  choice.add_to(selection);
}

std::vector<float> sampled_queries(const QueryBlock& block, int key_dim, int most) {
  const int rows = std::min(block.rows, most);
  const int64_t row_floats = static_cast<int64_t>(block.group) * key_dim;
  std::vector<float> queries(rows * row_floats);
  for (int r = 0; r < rows; ++r) {
    const int64_t row = static_cast<int64_t>(r + 1) * block.rows / rows - 1;
    std::copy_n(block.queries + row * row_floats, row_floats, queries.data() + r * row_floats);
  }
  return queries;
}

}  // namespace fathom
