#include "decode/draft.h"

#include <algorithm>

namespace fathom {

std::span<const float> select_hidden(std::span<const float> hidden, std::span<const int> kept,
                                     std::span<const int> wanted, std::vector<float>& buffer) {
  if (wanted.empty() || hidden.empty()) return {};
  if (std::ranges::equal(wanted, kept)) return hidden;
  buffer.clear();
  const size_t layer_size = hidden.size() / kept.size();
  for (const int layer : wanted) {
    const auto found = std::ranges::lower_bound(kept, layer);
    const auto states = hidden.subspan((found - kept.begin()) * layer_size, layer_size);
    buffer.insert(buffer.end(), states.begin(), states.end());
  }
  return buffer;
}

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
