#pragma once

#include <span>
#include <vector>

namespace fathom {

/// Draft tokens proposed as continuations of a sequence. They form a forest: the tokens on the path from a root to
/// any node are one candidate continuation. Nodes are numbered in the order of add(), so a parent has a smaller
/// number than its children.
class DraftTree {
 public:
  static constexpr int kMaxNodes = 64;

  /// Returns a draft without branches: the parent of node i is node i − 1.
  static DraftTree chain(int nodes);

  /// Adds a child of `parent`, or a root if `parent` is −1, and returns its number. Throws Error if the parent does
  /// not exist or the tree already has kMaxNodes nodes.
  int add(int parent);

  int size() const { return static_cast<int>(nodes_.size()); }
  int parent(int node) const { return nodes_[node].parent; }
  /// Number of ancestors: 0 for a root.
  int depth(int node) const { return nodes_[node].depth; }
  /// Returns the ancestors of the node and the node itself, from a root downwards.
  std::vector<int> path(int node) const;
  /// Returns whether the draft has no branches.
  bool is_chain() const;
  /// Returns whether the first of `nodes` is a root and each is the parent of the next. True for no nodes.
  bool is_path(std::span<const int> nodes) const;

 private:
  struct Node {
    int parent, depth;
  };
  std::vector<Node> nodes_;
};

}  // namespace fathom
