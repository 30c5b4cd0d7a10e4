#include "memory/draft_tree.h"

#include <ranges>

#include "base/error.h"

namespace fathom {

DraftTree DraftTree::chain(int nodes) {
  DraftTree tree;
  for (int i = 0; i < nodes; ++i) tree.add(i - 1);
  return tree;
}

int DraftTree::add(int parent) {
  const int node = size();
  if (node == kMaxNodes) fail("draft: expected at most ", kMaxNodes, " tokens");
  if (parent < -1 || parent >= node)
    fail("draft token ", node, ": expected a parent from -1 to ", node - 1, ", found ", parent);
  nodes_.push_back({parent, parent < 0 ? 0 : nodes_[parent].depth + 1});
  return node;
}

std::vector<int> DraftTree::path(int node) const {
  std::vector<int> nodes(depth(node) + 1);
  for (int& at : std::views::reverse(nodes)) {
    at = node;
    node = parent(node);
  }
  return nodes;
}

bool DraftTree::is_chain() const {
  for (int i = 0; i < size(); ++i)
    if (nodes_[i].parent != i - 1) return false;
  return true;
}

bool DraftTree::is_path(std::span<const int> nodes) const {
  int last = -1;
  for (const int node : nodes) {
    if (node < 0 || node >= size() || nodes_[node].parent != last) return false;
    last = node;
  }
  return true;
}

}  // namespace fathom
