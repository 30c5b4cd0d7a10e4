#include <algorithm>
#include <cmath>
#include <set>

#include "eval/metrics.h"

namespace fathom::eval {
namespace {

/// Returns runs of capital Roman digits that are not adjacent to other letters or digits.
std::vector<std::string> roman_numerals(std::string_view text) {
  const auto joins = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           (c & 0x80) != 0;
  };
  std::vector<std::string> numerals;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = begin;
    while (end < text.size() && joins(text[end])) ++end;
    const std::string_view word = text.substr(begin, end - begin);
    if (!word.empty() && word.find_first_not_of("IVXLCDM") == std::string_view::npos) numerals.emplace_back(word);
    begin = end + 1;
  }
  return numerals;
}

}  // namespace

OrderDistances order_distances(std::span<const int64_t> order) {
  const auto n = static_cast<double>(order.size());
  if (order.empty()) return {};
  double squares = 0, steps = 0, cycles = 0;
  std::vector<bool> visited(order.size());
  for (size_t i = 0; i < order.size(); ++i) {
    const auto distance = std::abs(static_cast<double>(order[i]) - static_cast<double>(i));
    squares += distance * distance;
    steps += distance;
    if (visited[i]) continue;
    ++cycles;
    for (size_t k = i; !visited[k]; k = order[k]) visited[k] = true;
  }
  return {squares / n, steps / n, n - cycles, steps / 2};
}

OrderDistances worst_order_distances(int64_t n) {
  if (n < 1) return {};
  const auto size = static_cast<double>(n);
  const auto steps = static_cast<double>(n * n / 2);  // Σ|p_i − i| of the reversed order, the maximum
  return {(size * size - 1) / 3, steps / size, size - 1, steps / 2};
}

std::vector<int64_t> positions_in(const std::vector<std::string>& answered,
                                  const std::vector<std::string>& expected) {
  if (answered.size() != expected.size()) return {};
  std::vector<int64_t> positions;
  std::set<int64_t> used;
  for (const std::string& item : answered) {
    const auto position = std::ranges::find(expected, item) - expected.begin();
    if (position == static_cast<int64_t>(expected.size()) || !used.insert(position).second) return {};
    positions.push_back(position);
  }
  return positions;
}

std::vector<std::string> enumerated(std::string_view text) {
  std::vector<std::string> items;
  for (const std::string_view run : digit_runs(text)) items.emplace_back(run);
  return items.empty() ? roman_numerals(text) : items;
}

}  // namespace fathom::eval
