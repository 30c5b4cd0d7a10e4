#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "session/rows.h"

namespace fathom {

/// The latest known successors of each token, most likely first. 32 bytes per token of the vocabulary.
/// Source: Token Recycling, 2024.
class RecycleTable {
 public:
  static constexpr int kSuccessors = 8;
  static constexpr int32_t kAbsent = -1;
  using Successors = std::array<int32_t, kSuccessors>;  // the known ones first, then kAbsent

  explicit RecycleTable(int64_t vocabulary);

  /// Returns the successors of a token; none for a token outside the vocabulary.
  const Successors& after(int32_t token) const;
  /// Puts `best` before the known successors of `token`. Ignores tokens outside the vocabulary.
  void add(int32_t token, std::span<const TokenLogit> best);
  /// Puts one token before the known successors of `token`.
  void add(int32_t token, int32_t successor);

 private:
  bool known(int32_t token) const { return token >= 0 && token < std::ssize(rows_); }
  std::vector<Successors> rows_;
};

/// A node of the tree template: the child of `parent` (−1: the root) that holds its `rank`-th successor.
struct RecycleNode {
  int parent, depth, rank;
};

/// Returns the template of the paper: 80 nodes, level by level, siblings by rank.
std::span<const RecycleNode> recycle_template();

}  // namespace fathom
