#include "decode/drafts/trigram_search.h"

#include <cmath>

namespace fathom {

std::span<const TrigramSearch::Node> TrigramSearch::run(const TrigramTable& table, int32_t a, int32_t b,
                                                        int64_t visits, uint64_t seed) {
  random_ = seed;
  nodes_.clear();
  nodes_.push_back({.token = b, .probability = 1, .parent = -1, .depth = 0});
  expand(0, table, a);
  if (nodes_[0].children == 0) return nodes_;
  for (int64_t i = 0; i < visits; ++i) {
    int node = 0;
    int32_t before = a;
    double value = 1;
    while (nodes_[node].children > 0) {
      before = nodes_[node].token;
      node = select(node);
      value += nodes_[node].probability;
    }
    if (nodes_[node].depth < kDepth) {
      if (nodes_[node].visits == 0) expand(node, table, before);
      value += roll_out(table, before, nodes_[node].token, nodes_[node].depth);
    }
    for (; node >= 0; node = nodes_[node].parent) {
      ++nodes_[node].visits;
      nodes_[node].value += value;
    }
  }
  return nodes_;
}

int TrigramSearch::select(int node) const {
  const Node& parent = nodes_[node];
  const double visits = static_cast<double>(parent.visits);
  const double factor = (32 + std::log((visits + 8 + 1) / 8)) * std::sqrt(visits);
  int best = -1;
  double best_score = 0;
  for (int i = parent.first_child; i < parent.first_child + parent.children; ++i) {
    const Node& child = nodes_[i];
    if (child.visits == 0) return i;  // siblings are in the order of their probability
    const double n = static_cast<double>(child.visits);
    const double score = child.value / n + factor * child.probability / (1 + n);
    if (best < 0 || score > best_score) best = i, best_score = score;
  }
  return best;
}

void TrigramSearch::expand(int node, const TrigramTable& table, int32_t before) {
  table.find(before, nodes_[node].token, successors_);
  if (successors_.empty()) return;
  nodes_[node].first_child = static_cast<int>(nodes_.size());
  nodes_[node].children = static_cast<int>(successors_.size());
  for (const TrigramTable::Successor& successor : successors_)
    nodes_.push_back({.token = successor.token,
                      .probability = successor.probability,
                      .parent = node,
                      .depth = nodes_[node].depth + 1});
}

/// Returns the sum of the probabilities along a random path from depth to kDepth.
double TrigramSearch::roll_out(const TrigramTable& table, int32_t a, int32_t b, int depth) {
  double value = 0;
  for (; depth < kDepth; ++depth) {
    const TrigramTable::Successor next = table.draw(a, b, uniform());
    if (next.token < 0) break;
    value += next.probability;
    a = b;
    b = next.token;
  }
  return value;
}

/// Returns the next number of a SplitMix64 generator, uniform in [0, 1).
double TrigramSearch::uniform() {
  random_ += 0x9e3779b97f4a7c15u;
  uint64_t x = random_;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return static_cast<double>((x ^ (x >> 31)) >> 11) * 0x1p-53;
}

}  // namespace fathom
