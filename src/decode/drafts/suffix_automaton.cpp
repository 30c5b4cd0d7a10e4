#include "decode/drafts/suffix_automaton.h"

#include <algorithm>

#include "base/error.h"

namespace fathom {

SuffixAutomaton::SuffixAutomaton(int depth) : depth_(depth), states_(1) {}

void SuffixAutomaton::clear() {
  size_ = 0;
  last_ = newest_ = kRoot;
  states_.assign(1, {});
  edges_.clear();
  slots_.clear();
  used_slots_ = 0;
}

void SuffixAutomaton::append(int32_t token) {
  if (size_ + 1 >= 1 << 29) fail("suffix automaton: expected fewer than ", 1 << 29, " tokens");
  const int state = static_cast<int>(states_.size());
  states_.push_back({.length = ++size_});
  int p = last_, edge = kNone;
  for (; p != kNone && (edge = find_edge(p, token)) == kNone; p = states_[p].link) add_edge(p, token, state);
  if (p == kNone) {
    states_[state].link = kRoot;
  } else {
    int target = edges_[edge].target;
    if (states_[target].length != states_[p].length + 1) {
      const int original = target;
      target = clone(original, states_[p].length + 1);
      for (; p != kNone && (edge = find_edge(p, token)) != kNone && edges_[edge].target == original;
           p = states_[p].link)
        edges_[edge].target = target;
    }
    states_[state].link = target;
  }
  last_ = state;
  count_suffixes(token);
}

/// Moves the substrings of a state with at most `length` tokens to a new state and returns it.
int SuffixAutomaton::clone(int state, int length) {
  const int copy = static_cast<int>(states_.size());
  const State& original = states_[state];
  states_.push_back({.length = length, .link = original.link, .count = original.count, .end = original.end});
  for (int i = states_[state].first_edge; i != kNone; i = edges_[i].next)
    add_edge(copy, edges_[i].token, edges_[i].target);
  states_[state].link = copy;
  if (newest_ == state && std::min(depth_, size_ - 1) <= length) newest_ = copy;
  return copy;
}

/// Moves newest_ by one token and counts the suffixes of at most depth_ tokens.
void SuffixAutomaton::count_suffixes(int32_t token) {
  newest_ = edges_[find_edge(newest_, token)].target;
  while (states_[states_[newest_].link].length >= depth_) newest_ = states_[newest_].link;
  for (int s = newest_; s != kRoot; s = states_[s].link) {
    ++states_[s].count;
    states_[s].end = size_;
  }
}

int SuffixAutomaton::next(int state, int32_t token) const {
  const int edge = find_edge(state, token);
  return edge == kNone ? kNone : edges_[edge].target;
}

int SuffixAutomaton::find_edge(int state, int32_t token) const {
  if (states_[state].edges > kListed) return slots_[find_slot(state, token)];
  int i = states_[state].first_edge;
  while (i != kNone && edges_[i].token != token) i = edges_[i].next;
  return i;
}

void SuffixAutomaton::add_edge(int state, int32_t token, int target) {
  const int edge = static_cast<int>(edges_.size());
  edges_.push_back({state, token, target, kNone});
  State& from = states_[state];
  (from.first_edge == kNone ? from.first_edge : edges_[from.last_edge].next) = edge;
  from.last_edge = edge;
  ++from.edges;
  if (from.edges == kListed + 1) {
    for (int i = from.first_edge; i != kNone; i = edges_[i].next) add_to_slots(i);
  } else if (from.edges > kListed) {
    add_to_slots(edge);
  }
}

size_t SuffixAutomaton::find_slot(int state, int32_t token) const {
  uint64_t h = (uint64_t{static_cast<uint32_t>(state)} << 32 | static_cast<uint32_t>(token)) * 0x9e3779b97f4a7c15u;
  h = (h ^ (h >> 32)) * 0xbf58476d1ce4e5b9u;
  for (size_t i = (h >> 20) & (slots_.size() - 1);; i = (i + 1) & (slots_.size() - 1)) {
    if (slots_[i] == kNone) return i;
    const Edge& edge = edges_[slots_[i]];
    if (edge.state == state && edge.token == token) return i;
  }
}

void SuffixAutomaton::add_to_slots(int edge) {
  if (2 * (used_slots_ + 1) > slots_.size()) {
    std::vector<int> old(std::max<size_t>(64, 2 * slots_.size()), kNone);
    old.swap(slots_);
    for (const int i : old)
      if (i != kNone) slots_[find_slot(edges_[i].state, edges_[i].token)] = i;
  }
  slots_[find_slot(edges_[edge].state, edges_[edge].token)] = edge;
  ++used_slots_;
}

}  // namespace fathom
