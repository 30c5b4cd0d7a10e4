#include "attend/page_choice.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "kernels/kernels.h"

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

PageQueries::PageQueries(const QueryBlock& block, int key_dim, int most_rows)
    : block_(block), key_dim_(key_dim), group_(block.group) {
  const int count = std::min(block.rows, most_rows);
  for (int i = 1; i <= count; ++i) rows_.push_back(i * block.rows / count - 1);
  if (!block.rotations) return;
  spare_.resize(2 * static_cast<size_t>(block.rotations->pairs()));
  back_.resize(block.rotations->pairs());
}

std::vector<float> PageQueries::all() const {
  const size_t row_floats = static_cast<size_t>(group_) * key_dim_;
  std::vector<float> queries(rows_.size() * row_floats);
  float* out = queries.data();
  for (const int row : rows_) out = std::copy_n(block_.queries + row * row_floats, row_floats, out);
  return queries;
}

const float* PageQueries::at(int64_t place) {
  const int pairs = block_.rotations ? block_.rotations->pairs() : 0;
  turned_ = all();
  if (pairs == 0) return turned_.data();
  const PlaceRotations::View turn = block_.rotations->at(place, spare_.data());
  for (int i = 0; i < pairs; ++i) back_[i] = -turn.sin[i];
  for (int i = 0; i < count(); ++i)
    kernels().rotate_pairs(turned_.data() + static_cast<int64_t>(i) * key_dim_, turn.cos, back_.data(), pairs);
  return turned_.data();
}

}  // namespace fathom
