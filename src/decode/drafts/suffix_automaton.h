#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace fathom {

/// The suffix automaton of a text that grows, with the number of occurrences of each substring of at most `depth`
/// tokens. A state is a set of substrings that end at the same positions of the text: the longest one and its
/// suffixes down to the length of link(state) + 1. Appending is O(depth) worst case and O(1) amortised without the
/// counts. At most 2 states and 3 edges per token: 40 to 150 bytes.
/// Source: Blumer et al., The smallest automaton recognizing the subwords of a text, 1985.
class SuffixAutomaton {
 public:
  static constexpr int kRoot = 0;  // the state of the empty substring
  static constexpr int kNone = -1;

  explicit SuffixAutomaton(int depth);

  /// Throws Error for the 2^29th token.
  void append(int32_t token);
  void clear();
  int64_t size() const { return size_; }  // number of tokens

  /// Returns the state of the newest min(depth, size) tokens.
  int newest() const { return newest_; }
  /// Returns the state of the longest suffix of its substrings that occurs more often; kNone for the root.
  int link(int state) const { return states_[state].link; }
  /// Returns the length of the longest substring of the state.
  int length(int state) const { return states_[state].length; }
  /// Returns the state after an edge, or kNone.
  int next(int state, int32_t token) const;
  int edges(int state) const { return states_[state].edges; }

  /// Returns how often the substrings of a state occur. 0 if all are longer than depth, and for the root.
  int count(int state) const { return states_[state].count; }
  /// Returns how often they are followed by a token: count without an occurrence at the end of the text.
  int continuations(int state) const {
    return states_[state].count - (states_[state].count > 0 && states_[state].end == size_ ? 1 : 0);
  }

  /// Calls visit(token, target) for the first `limit` edges of a state, in the order in which they were added.
  template <class Visit>
  void for_edges(int state, int limit, Visit&& visit) const {
    for (int i = states_[state].first_edge; i != kNone && limit-- > 0; i = edges_[i].next)
      visit(edges_[i].token, edges_[i].target);
  }

 private:
  struct State {
    int length = 0, link = kNone;
    int first_edge = kNone, last_edge = kNone, edges = 0;
    int count = 0;
    int end = 0;  // end of the latest occurrence, if counted
  };
  struct Edge {
    int state;
    int32_t token;
    int target, next;
  };
  int find_edge(int state, int32_t token) const;
  void add_edge(int state, int32_t token, int target);
  int clone(int state, int length);
  void count_suffixes(int32_t token);
  size_t find_slot(int state, int32_t token) const;
  void add_to_slots(int edge);

  int depth_;
  int size_ = 0;
  int last_ = kRoot;  // state of the whole text
  int newest_ = kRoot;
  std::vector<State> states_;
  std::vector<Edge> edges_;
  // Edges of the states with more than kListed edges, by state and token: open addressing, kNone is empty.
  static constexpr int kListed = 4;
  std::vector<int> slots_;
  size_t used_slots_ = 0;
};

}  // namespace fathom
