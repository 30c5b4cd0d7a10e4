#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace fathom {

/// Tokens proposed for a sequence, before it is known which of them it takes: a forest in which the tokens from a
/// root to any node are one continuation. Nodes are numbered in the order of add(); parents come before their
/// children.
class DraftTree {
 public:
  static constexpr int kMaxNodes = 64;  // the ancestors of a node are one word

  /// A draft without branches: node i follows node i − 1.
  static DraftTree chain(int nodes);

  /// Adds a node behind `parent`, or a root (−1), and returns its number. Throws Error for a parent that does not
  /// exist and for more than kMaxNodes.
  int add(int parent);

  int size() const { return static_cast<int>(nodes_.size()); }
  int parent(int node) const { return nodes_[node].parent; }
  /// Tokens before the node on its path: 0 for a root.
  int depth(int node) const { return nodes_[node].depth; }
  /// The nodes of the path to the node, itself included: bit i is node i.
  uint64_t path(int node) const { return nodes_[node].path; }
  bool is_chain() const;
  /// Whether each node is the parent of the next one, and the first is a root.
  bool is_path(std::span<const int> nodes) const;

 private:
  struct Node {
    int parent, depth;
    uint64_t path;
  };
  std::vector<Node> nodes_;
};

}  // namespace fathom
