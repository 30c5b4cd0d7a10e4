#include "decode/draft.h"

namespace fathom {

int Draft::add(int parent, int32_t token, float estimate) {
  const int node = tree.add(parent);
  tokens.push_back(token);
  estimates.push_back(estimate);
  if (!probes.empty()) probes.push_back(0);
  return node;
}

int Draft::add_probe(int parent, int32_t token, float estimate) {
  const int step = parent < 0 || probes.empty() ? 1 : probes[parent] + 1;
  const int node = add(parent, token, estimate);
  probes.resize(size());
  probes[node] = static_cast<uint8_t>(step);
  return node;
}

int Draft::find_child(int parent, int32_t token) const {
  for (int node = parent + 1; node < size(); ++node)
    if (tree.parent(node) == parent && tokens[node] == token && !is_probe(node)) return node;
  return -1;
}

int Draft::find_probe(int parent) const {
  for (int node = parent + 1; node < size(); ++node)
    if (tree.parent(node) == parent && is_probe(node)) return node;
  return -1;
}

}  // namespace fathom
