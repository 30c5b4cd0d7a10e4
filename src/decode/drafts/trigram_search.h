#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "decode/drafts/trigram_table.h"

namespace fathom {

/// Monte Carlo tree search over the continuations of a pair of tokens. The value of a path is 1 + Σ P(next | pair)
/// along it. Deterministic: the roll-outs depend on the seed alone.
/// Source: Adaptive Draft-Verification for Efficient Large Language Model Decoding, 2024.
class TrigramSearch {
 public:
  static constexpr int kDepth = 4;

  struct Node {
    int32_t token;
    float probability;  // P(token | pair before it)
    int parent;         // −1: the root
    int depth;          // 1: follows the pair
    int first_child = -1, children = 0;
    int64_t visits = 0;
    double value = 0;  // sum of the values of its paths
  };

  /// Returns all nodes: the root first, parents before children. Valid until the next call.
  std::span<const Node> run(const TrigramTable& table, int32_t a, int32_t b, int64_t visits, uint64_t seed);

 private:
  int select(int node) const;
  void expand(int node, const TrigramTable& table, int32_t before);
  double roll_out(const TrigramTable& table, int32_t a, int32_t b, int depth);
  double uniform();

  std::vector<Node> nodes_;
  std::vector<TrigramTable::Successor> successors_;
  uint64_t random_ = 0;
};

}  // namespace fathom
