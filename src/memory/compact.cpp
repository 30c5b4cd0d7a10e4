// PagedKv::compact: moves the visible tokens of a page table together, so that masked tokens occupy neither pages
// nor positions.
#include <algorithm>
#include <bit>

#include "kernels/page_copy.h"
#include "memory/paged_kv.h"

namespace fathom {
namespace {

/// Entries [begin, end) of a page table. Compaction copies the tokens of these entries; the pages before and after
/// them have no gaps and are kept.
struct CopiedEntries {
  size_t begin, end;
};

CopiedEntries copied_entries_of(const PageTable& table) {
  const auto without_gaps = [&](size_t e) { return table[e].mask == page_bits(0, table[e].filled); };
  const auto full = [&](size_t e) { return without_gaps(e) && table[e].filled == kPageTokens; };
  CopiedEntries copied{0, table.size()};
  if (!table.empty() && without_gaps(table.size() - 1)) --copied.end;  // the last page may be partly filled
  while (copied.end < table.size() && copied.end > 0 && full(copied.end - 1)) --copied.end;
  while (copied.begin < copied.end && full(copied.begin)) ++copied.begin;
  return copied;
}

int64_t count_visible(const PageTable& table, CopiedEntries entries) {
  int64_t count = 0;
  for (size_t e = entries.begin; e < entries.end; ++e) count += std::popcount(table[e].mask);
  return count;
}

/// Appends copies of single tokens to new pages.
class PageFiller {
 public:
  PageFiller(PageStore& store, const Kernels& kernels, const PositionRotations& rotations)
      : store_(store),
        rotations_(rotations),
        kernels_(kernels),
        key_(store.shape().key_dim),
        sin_(rotations.pairs()) {}

  void add(PageId page, int token) {
    if (filled_.empty() || filled_.back().entry.filled == kPageTokens) filled_.push_back({{}, store_.allocate()});
    PageEntry& entry = filled_.back().entry;
    const PageId to = filled_.back().page.get();
    const PageShape& shape = store_.shape();
    if (token == entry.filled || rotations_.pairs() == 0) {
      copy_key(shape.format, shape.key_dim, store_.keys(page), token, store_.keys(to), entry.filled);
    } else {
      rotate_key(store_.keys(page), token, to, entry.filled);
    }
    store_.copy_value(page, token, to, entry.filled);
    entry.mask |= uint64_t{1} << entry.filled++;
  }

  struct Filled {
    PageEntry entry;
    PageRef page;
  };
  std::vector<Filled>& filled() { return filled_; }

 private:
  /// Copies a key to another offset: inverse-rotates it by its old offset, then rotates it by the new one.
  void rotate_key(const std::byte* keys, int token, PageId to, int offset) {
    const PageShape& shape = store_.shape();
    read_key(shape.format, shape.key_dim, keys, token, key_.data());
    const PositionRotations::View rotation = rotations_.inverse(rotations_.offset(token), sin_.data());
    kernels_.rotate_pairs(key_.data(), rotation.cos, rotation.sin, rotations_.pairs());
    PageWrite write;  // a key only: value_dim is 0
    write.format = shape.format;
    write.key_dim = shape.key_dim;
    write.rotary_dim = 2 * rotations_.pairs();
    write.page_keys = store_.keys(to);
    write.page_values = store_.values(to);
    write.first = offset;
    write.count = 1;
    write.keys = key_.data();
    write.rotations = rotations_.offset(0).cos;
    kernels_.write_page(write);
  }

  PageStore& store_;
  const PositionRotations& rotations_;
  const Kernels& kernels_;
  std::vector<Filled> filled_;
  std::vector<float> key_, sin_;
};

/// Returns the original indices of the visible tokens of a table.
std::vector<int64_t> original_indices(const PageTable& table, const CompactedTokens& compacted) {
  std::vector<int64_t> indices;
  for (const PageEntry& entry : table) {
    for (uint64_t left = entry.mask; left != 0; left &= left - 1)
      indices.push_back(compacted.original_index(entry.first + std::countr_zero(left)));
  }
  return indices;
}

}  // namespace

TableGaps gaps_of(const PageTable& table) {
  if (table.empty()) return {};
  const int64_t span = table.back().first + table.back().filled - table.front().first;
  return {span - count_visible(table, {0, table.size()}), count_visible(table, copied_entries_of(table))};
}

bool PagedKv::compact(const Kernels& kernels, int head, bool merge_pages) {
  PageTable& table = tables_[head];
  CompactedTokens& compacted = compacted_[head];
  const TableGaps gaps = gaps_of(table);
  const int64_t shift = next_position_ - tokens_;
  const auto is_consecutive = [&](const PageEntry& entry) { return entry.position - entry.first == shift; };
  const CopiedEntries copied = copied_entries_of(table);
  const bool useful = gaps.masked > 0 || (merge_pages && gaps.rewritten > 0);
  if (!useful || !std::ranges::all_of(table, is_consecutive)) return false;
  PageStore& store = *config_.store;
  PageFiller filler(store, kernels, rotations());
  for (size_t e = copied.begin; e < copied.end; ++e) {
    for (uint64_t left = table[e].mask; left != 0; left &= left - 1)
      filler.add(table[e].page, std::countr_zero(left));
  }
  std::vector<int64_t> original = original_indices(table, compacted);
  PageTable result(store);
  int64_t index = tokens_ - static_cast<int64_t>(original.size());
  const int64_t begin = index;
  const auto append = [&](PageEntry entry, PageRef page) {
    entry.first = index;
    entry.position = index + shift;
    index += entry.filled;
    result.push_back(entry, std::move(page));
  };
  const auto keep = [&](const PageEntry& entry) {
    if (entry.page != kNoPage) store.retain(entry.page);
    append(entry, entry.page != kNoPage ? PageRef(store, entry.page) : PageRef());
  };
  for (size_t e = 0; e < copied.begin; ++e) keep(table[e]);
  for (PageFiller::Filled& filled : filler.filled()) append(filled.entry, std::move(filled.page));
  for (size_t e = copied.end; e < table.size(); ++e) keep(table[e]);
  if (gaps.masked > 0 || !compacted.original_indices.empty()) compacted = {begin, shift, std::move(original)};
  table = std::move(result);
  versions_[head].add(0);
  return true;
}

}  // namespace fathom
