#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <queue>
#include <vector>

#include "tokens/vocabulary.h"

namespace fathom {

/// A part of a word while its pairs are being merged.
struct Symbol {
  uint32_t begin = 0, bytes = 0;  // in the word
  int32_t id = kNoToken;          // of the piece with this text; kNoToken if there is none
};

/// The result of merging two neighbours. The pair with the lowest rank is merged first; among equal ranks, the
/// leftmost pair.
struct Merge {
  static constexpr uint32_t kNever = std::numeric_limits<uint32_t>::max();
  uint32_t rank = kNever;
  int32_t id = kNoToken;
};

namespace merging {

/// For few symbols: scans all pairs for the best one after each merge. Quadratic, but all ranks are in one short
/// array.
template <class FindMerge>
void merge_few(std::vector<Symbol>& symbols, const FindMerge& find_merge) {
  thread_local std::vector<Merge> merges;  // of symbol i with symbol i + 1
  merges.clear();
  for (size_t i = 0; i + 1 < symbols.size(); ++i) merges.push_back(find_merge(symbols[i], symbols[i + 1]));
  while (!merges.empty()) {
    const auto best = std::ranges::min_element(merges, {}, &Merge::rank);
    if (best->rank == Merge::kNever) return;
    const size_t i = best - merges.begin();
    symbols[i].bytes += symbols[i + 1].bytes;
    symbols[i].id = best->id;
    symbols.erase(symbols.begin() + i + 1);
    merges.erase(merges.begin() + i);
    if (i < merges.size()) merges[i] = find_merge(symbols[i], symbols[i + 1]);
    if (i > 0) merges[i - 1] = find_merge(symbols[i - 1], symbols[i]);
  }
}

/// A pair in the queue. It is valid while its two symbols together still have `bytes` bytes.
struct MergeCandidate {
  uint32_t rank, left, right, bytes;
  int32_t id;
  bool operator<(const MergeCandidate& other) const {
    return rank != other.rank ? rank > other.rank : left > other.left;  // the top of a queue is its greatest
  }
};

/// For many symbols: a linked list and a priority queue, O(n log n).
template <class FindMerge>
void merge_many(std::vector<Symbol>& symbols, const FindMerge& find_merge) {
  const auto count = static_cast<uint32_t>(symbols.size());
  std::vector<uint32_t> next(count), previous(count);
  std::vector<MergeCandidate> storage;
  storage.reserve(count);
  std::priority_queue<MergeCandidate> queue({}, std::move(storage));
  const auto offer = [&](uint32_t left, uint32_t right) {
    const Merge merge = find_merge(symbols[left], symbols[right]);
    if (merge.rank == Merge::kNever) return;
    queue.push({merge.rank, left, right, symbols[left].bytes + symbols[right].bytes, merge.id});
  };
  for (uint32_t i = 0; i < count; ++i) {
    previous[i] = i - 1;
    next[i] = i + 1;
    if (i > 0) offer(i - 1, i);
  }
  while (!queue.empty()) {
    const MergeCandidate best = queue.top();
    queue.pop();
    Symbol& left = symbols[best.left];
    Symbol& right = symbols[best.right];
    if (left.bytes == 0 || right.bytes == 0 || left.bytes + right.bytes != best.bytes) continue;
    left.bytes = best.bytes;
    left.id = best.id;
    right.bytes = 0;
    next[best.left] = next[best.right];
    if (next[best.left] < count) {
      previous[next[best.left]] = best.left;
      offer(best.left, next[best.left]);
    }
    if (best.left > 0) offer(previous[best.left], best.left);
  }
  std::erase_if(symbols, [](const Symbol& symbol) { return symbol.bytes == 0; });
}

}  // namespace merging

/// Merges neighbouring symbols, best pair first, until no pair can be merged. find_merge(left, right) returns a
/// Merge. symbols: adjacent, none empty.
template <class FindMerge>
void merge_symbols(std::vector<Symbol>& symbols, const FindMerge& find_merge) {
  constexpr size_t kFew = 48;  // symbols up to which the scan is faster than the queue
  if (symbols.size() <= kFew) {
    merging::merge_few(symbols, find_merge);
  } else {
    merging::merge_many(symbols, find_merge);
  }
}

}  // namespace fathom
