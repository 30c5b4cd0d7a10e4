#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <numeric>
#include <set>
#include <vector>

namespace fathom::test {

/// Returns the tokens as a set.
inline std::set<int64_t> as_set(const std::vector<int64_t>& tokens) { return {tokens.begin(), tokens.end()}; }

/// Returns 0 to end − 1.
inline std::vector<int64_t> all_below(int64_t end) {
  std::vector<int64_t> tokens(end);
  std::iota(tokens.begin(), tokens.end(), 0);
  return tokens;
}

/// Returns the indices of the k largest scores.
inline std::set<int64_t> largest(const std::vector<double>& scores, int64_t k) {
  std::vector<int64_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, std::greater(), [&](int64_t i) { return scores[i]; });
  return {order.begin(), order.begin() + k};
}

}  // namespace fathom::test
