#include "decode/drafts/recycle_table.h"

#include <algorithm>

namespace fathom {
namespace {

void put_first(RecycleTable::Successors& row, int32_t token) {
  const auto found = std::ranges::find(row, token);
  std::rotate(row.begin(), found == row.end() ? row.end() - 1 : found, found == row.end() ? row.end() : found + 1);
  row[0] = token;
}

std::vector<RecycleNode> make_template() {
  // Number of children of the root and of each node, level by level. Levels have 8, 21, 25, 15, 8 and 3 nodes.
  constexpr int kChildren[] = {8,                                               //
                               8, 4, 3, 2, 1, 1, 1, 1,                          //
                               8, 3, 2, 1, 1, 1, 1, 1, 2, 1, 0, 0, 1, 0, 0, 1,  //
                               0, 1, 1, 0, 0,                                   //
                               5, 2, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0,  //
                               0, 0, 1, 0, 0, 1, 1, 0, 0,                       //
                               3, 1, 1, 0, 0, 1, 0, 0, 0, 0, 1, 0, 1, 0, 0,     //
                               2, 0, 0, 1, 0, 0, 0, 0,                          //
                               0, 0, 0};
  std::vector<RecycleNode> nodes;
  for (int i = 0; i < std::ssize(kChildren); ++i)
    for (int rank = 0; rank < kChildren[i]; ++rank)
      nodes.push_back({i - 1, i == 0 ? 0 : nodes[i - 1].depth + 1, rank});
  return nodes;
}

}  // namespace

RecycleTable::RecycleTable(int64_t vocabulary) : rows_(static_cast<size_t>(vocabulary)) {
  for (Successors& row : rows_) row.fill(kAbsent);
}

const RecycleTable::Successors& RecycleTable::after(int32_t token) const {
  static constexpr Successors kNone = {kAbsent, kAbsent, kAbsent, kAbsent, kAbsent, kAbsent, kAbsent, kAbsent};
  return known(token) ? rows_[token] : kNone;
}

void RecycleTable::add(int32_t token, std::span<const TokenLogit> best) {
  if (!known(token)) return;
  best = best.first(std::min<size_t>(best.size(), kSuccessors));
  for (size_t i = best.size(); i-- > 0;)
    if (known(best[i].token)) put_first(rows_[token], best[i].token);
}

void RecycleTable::add(int32_t token, int32_t successor) {
  if (known(token) && known(successor)) put_first(rows_[token], successor);
}

std::span<const RecycleNode> recycle_template() {
  static const std::vector<RecycleNode> nodes = make_template();
  return nodes;
}

}  // namespace fathom
