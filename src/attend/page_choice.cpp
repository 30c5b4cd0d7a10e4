#include "attend/page_choice.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace fathom {

std::vector<Parameter> budget_parameters(const PageBudget& defaults) {
  using Type = Parameter::Type;
  return {{"budget", Type::kInt, std::to_string(defaults.tokens), "tokens seen by a query", 64, 1e12, {}},
          {"share", Type::kFloat, "0", "tokens seen as a share of those there are, if that is more", 0, 1, {}},
          {"sink", Type::kInt, std::to_string(defaults.sink), "first tokens, always seen", 0, 1e12, {}},
          {"local", Type::kInt, std::to_string(defaults.local), "newest tokens, always seen", 1, 1e12, {}}};
}

PageBudget read_budget(const Values& values) {
  return {values.integer("budget"), values.number("share"), values.integer("sink"), values.integer("local")};
}

void choose_pages(const Lane& lane, const QueryBlock& block, const PageBudget& budget,
                  const std::function<float(uint32_t)>& score, Selection& selection) {
  const int64_t end = block.first + block.rows;  // tokens that the last row sees
  const auto share = static_cast<int64_t>(std::llround(budget.share * static_cast<double>(end)));
  const int64_t limit = std::max(budget.tokens, share);
  const int64_t sink_end = first_token(lane) + budget.sink;
  std::vector<uint32_t> always, others;
  int64_t used = 0;
  for (uint32_t s = 0; s < lane.size() && lane[s].first < end; ++s) {
    const PageSlot& slot = lane[s];
    if (slot.mask == 0) continue;
    const bool near = slot.first + slot.filled > block.first + 1 - budget.local;
    if (near || slot.first < sink_end || slot.filled < kPageTokens) {
      always.push_back(s);
      used += std::popcount(slot.mask);
    } else {
      others.push_back(s);
    }
  }
  int64_t left = limit - used, all = 0;
  for (const uint32_t s : others) all += std::popcount(lane[s].mask);
  if (all > left) {
    std::vector<std::pair<float, uint32_t>> ranked;
    for (const uint32_t s : others) {
      const float value = score(s);
      ranked.emplace_back(std::isnan(value) ? -std::numeric_limits<float>::infinity() : value, s);
    }
    std::ranges::sort(ranked, std::greater());
    others.clear();
    for (const auto& [value, s] : ranked) {
      left -= std::popcount(lane[s].mask);
      if (left < 0) break;
      others.push_back(s);
    }
  }
  always.insert(always.end(), others.begin(), others.end());
  std::ranges::sort(always);
  for (const uint32_t s : always) selection.pages.push_back({s, lane[s].place, lane[s].mask, -1});
}

std::vector<float> drawn_queries(const QueryBlock& block, int key_dim, int most) {
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
