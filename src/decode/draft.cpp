#include "decode/draft.h"

namespace fathom {

int Draft::add(int parent, int32_t token, float estimate) {
  const int node = tree.add(parent);
  tokens.push_back(token);
  estimates.push_back(estimate);
  return node;
}

int Draft::find_child(int parent, int32_t token) const {
  for (int node = parent + 1; node < size(); ++node)
    if (tree.parent(node) == parent && tokens[node] == token) return node;
  return -1;
}

}  // namespace fathom
