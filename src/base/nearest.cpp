#include <algorithm>
#include <cctype>

#include "base/spec.h"

namespace fathom {

namespace {

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

/// Returns the optimal string alignment distance: the number of insertions, deletions, replacements and swaps of
/// neighbouring characters that change `a` into `b`.
size_t edit_distance(std::string_view a, std::string_view b) {
  // Three rows of the table [a.size() + 1, b.size() + 1]: a swap reads the row two above.
  std::vector<size_t> before(b.size() + 1), above(b.size() + 1), row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    before.swap(above);
    above.swap(row);
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, above[j - 1] + (a[i - 1] != b[j - 1])});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) row[j] = std::min(row[j], before[j - 2] + 1);
    }
  }
  return row[b.size()];
}

size_t common_prefix(std::string_view a, std::string_view b) {
  return std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin();
}

struct NameMatch {
  size_t distance;
  size_t prefix;
  const std::string* name;
};

}  // namespace

std::vector<std::string> nearest_names(std::string_view name, const std::vector<std::string>& names, size_t count) {
  const std::string typed = lower(name);
  std::vector<NameMatch> matches;
  for (const std::string& original : names) {
    const std::string known = lower(original);
    const size_t prefix = common_prefix(typed, known);
    // At most one typing error per three letters; an abbreviation counts as one error.
    const size_t limit = std::max<size_t>(1, known.size() / 3);
    if (typed.size() >= 2 && prefix == typed.size()) {
      matches.push_back({known == typed ? 0u : 1u, prefix, &original});
    } else if (typed.size() <= known.size() + limit && known.size() <= typed.size() + limit) {
      const size_t distance = edit_distance(typed, known);
      if (distance <= limit && distance < known.size()) matches.push_back({distance, prefix, &original});
    }
  }
  std::stable_sort(matches.begin(), matches.end(), [](const NameMatch& a, const NameMatch& b) {
    return a.distance != b.distance ? a.distance < b.distance : a.prefix > b.prefix;
  });
  std::vector<std::string> nearest;
  for (size_t i = 0; i < std::min(count, matches.size()); ++i) nearest.push_back(*matches[i].name);
  return nearest;
}

}  // namespace fathom
