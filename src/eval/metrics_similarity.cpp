#include <algorithm>
#include <cmath>
#include <map>

#include "eval/metrics.h"

namespace fathom::eval {
namespace {

using CharacterIds = std::vector<int32_t>;  // one id per character

struct MatchingBlock {
  int64_t a = 0, b = 0, size = 0;
};

/// The ascending positions in b of each character id.
using CharacterPositions = std::vector<std::vector<int64_t>>;

/// The ranges of both texts that are still to be compared.
struct ComparedRange {
  int64_t a_begin, a_end, b_begin, b_end;
};

/// Finds the longest common substring; among equal ones the earliest in a, then in b. lengths: scratch, [b.size() +
/// 1] zeros, restored to zeros.
MatchingBlock longest_block(const CharacterIds& a, const CharacterPositions& positions, const ComparedRange& in,
                            std::vector<int64_t>& lengths) {
  MatchingBlock best{in.a_begin, in.b_begin, 0};
  std::vector<int64_t> used;  // positions in b whose length is set, of the previous row
  std::vector<int64_t> ends;
  for (int64_t i = in.a_begin; i < in.a_end; ++i) {
    ends.clear();
    for (const int64_t j : positions[a[i]]) {
      if (j >= in.b_begin && j < in.b_end) ends.push_back(j);
    }
    std::vector<int64_t> sizes(ends.size());  // computed before entries of the previous row are overwritten
    for (size_t k = 0; k < ends.size(); ++k) sizes[k] = lengths[ends[k]] + 1;
    for (const int64_t j : used) lengths[j + 1] = 0;
    for (size_t k = 0; k < ends.size(); ++k) {
      lengths[ends[k] + 1] = sizes[k];
      if (sizes[k] > best.size) best = {i - sizes[k] + 1, ends[k] - sizes[k] + 1, sizes[k]};
    }
    std::swap(used, ends);
  }
  for (const int64_t j : used) lengths[j + 1] = 0;
  return best;
}

/// Returns the number of characters in matching blocks.
int64_t matched(const CharacterIds& a, const CharacterIds& b, const CharacterPositions& positions) {
  std::vector<int64_t> lengths(b.size() + 1, 0);
  std::vector<ComparedRange> pending{{0, static_cast<int64_t>(a.size()), 0, static_cast<int64_t>(b.size())}};
  int64_t total = 0;
  while (!pending.empty()) {
    const ComparedRange in = pending.back();
    pending.pop_back();
    const MatchingBlock block = longest_block(a, positions, in, lengths);
    if (block.size == 0) continue;
    total += block.size;
    if (in.a_begin < block.a && in.b_begin < block.b) pending.push_back({in.a_begin, block.a, in.b_begin, block.b});
    const int64_t a_next = block.a + block.size;
    const int64_t b_next = block.b + block.size;
    if (a_next < in.a_end && b_next < in.b_end) pending.push_back({a_next, in.a_end, b_next, in.b_end});
  }
  return total;
}

}  // namespace

double edit_similarity(std::string_view answer, std::string_view reference) {
  std::map<std::string_view, int32_t> ids;
  const auto ids_of = [&](std::string_view text) {
    CharacterIds all;
    for (const std::string_view c : characters(text)) {
      all.push_back(ids.emplace(c, static_cast<int32_t>(ids.size())).first->second);
    }
    return all;
  };
  const CharacterIds a = ids_of(answer);
  const CharacterIds b = ids_of(reference);
  if (a.empty() && b.empty()) return 1;
  CharacterPositions positions(ids.size());
  for (size_t j = 0; j < b.size(); ++j) positions[b[j]].push_back(static_cast<int64_t>(j));
  return 2.0 * static_cast<double>(matched(a, b, positions)) / static_cast<double>(a.size() + b.size());
}

double code_similarity(std::string_view answer, std::string_view reference) {
  std::string_view code;
  while (answer.starts_with('\n')) answer.remove_prefix(1);
  for (size_t begin = 0; begin <= answer.size();) {
    const size_t end = std::min(answer.find('\n', begin), answer.size());
    const std::string_view line = answer.substr(begin, end - begin);
    begin = end + 1;
    if (line.find_first_of("`#") != std::string_view::npos || line.find("//") != std::string_view::npos) continue;
    code = line;
    break;
  }
  return std::nearbyint(100 * edit_similarity(code, reference)) / 100;
}

}  // namespace fathom::eval
