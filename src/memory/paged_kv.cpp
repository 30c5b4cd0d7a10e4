#include "memory/paged_kv.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <optional>

#include "base/error.h"

namespace fathom {
namespace {

void check_position(int64_t position) {
  if (position < 0 || position >= kPositionLimit)
    fail("expected a position in [0, ", kPositionLimit, "), found ", position);
}

bool is_full(const PageEntry& entry) { return entry.filled == kPageTokens; }

}  // namespace

PagedKv::PagedKv(PagedKvConfig config)
    : config_(std::move(config)),
      tables_(config_.heads, PageTable(*config_.store)),
      compacted_(config_.heads),
      versions_(config_.heads) {
  assert(!shape().values_in_keys() || shape().value_offset >= 2 * static_cast<int>(rotations().pairs()));
}

std::unique_ptr<LayerState> PagedKv::fork() const {
  std::unique_ptr<PagedKv> copy(new PagedKv(config_));
  copy->tables_ = tables_;
  copy->compacted_ = compacted_;
  copy->versions_ = versions_;
  copy->tokens_ = tokens_;
  copy->next_position_ = next_position_;
  copy->end_position_ = end_position_;
  return copy;
}

std::unique_ptr<const PagedKv> PagedKv::without_newest(int64_t later) const {
  assert(later >= 0 && tokens_ - later >= opened_from_);
  std::unique_ptr<PagedKv> copy(new PagedKv(config_));
  copy->tables_ = tables_;
  copy->compacted_ = compacted_;
  copy->opened_from_ = opened_from_;
  copy->tokens_ = tokens_;
  copy->truncate(tokens_ - later);
  copy->versions_ = versions_;  // opened pages are not existing ones: their removal is no change
  return copy;
}

void PagedKv::open(const OpenedTokens& tokens) {
  for (const int64_t position : tokens.positions) check_position(position);
  opened_from_ = tokens_;
  for (PageTable& table : tables_) append(table, tokens.positions);
  tokens_ += static_cast<int64_t>(tokens.positions.size());
  if (!tokens.positions.empty()) next_position_ = tokens.positions.back() + 1;
  for (const int64_t position : tokens.positions) end_position_ = std::max(end_position_, position + 1);
}

void PagedKv::append(PageTable& table, std::span<const int64_t> positions) {
  int64_t index = tokens_;
  for (size_t i = 0; i < positions.size(); ++i, ++index) {
    bool fits = false;
    if (!table.empty()) {
      const PageEntry& last = table.back();
      fits = last.filled < config_.page_tokens && last.position + last.filled == positions[i] &&
             last.first + last.filled == index;
    }
    if (!fits) {
      table.push_back({kNoPage, 0, index, positions[i], 0}, config_.store->allocate());
    } else if (i == 0) {
      unshare_last(table);
      config_.store->mark_written(table.back().page);
    }
    PageEntry& entry = table.edit(table.size() - 1);
    entry.mask |= uint64_t{1} << entry.filled;
    ++entry.filled;
  }
}

void PagedKv::unshare_last(PageTable& table) {
  PageStore& store = *config_.store;
  const size_t last = table.size() - 1;
  const PageId page = table.edit(last).page;  // copies a shared run first: the copy then also owns the page
  if (!store.shared(page)) return;
  PageRef copy = store.allocate();
  std::memcpy(store.keys(copy.get()), store.keys(page), store.shape().bytes());
  table.set_page(last, std::move(copy));
}

PageWrite PagedKv::page_write(PageId page) const {
  PageStore& store = *config_.store;
  const PageShape& shape = store.shape();
  PageWrite write;
  write.format = shape.format;
  write.key_dim = shape.key_dim;
  write.value_dim = shape.values_in_keys() ? 0 : shape.value_dim;
  write.rotary_dim = 2 * rotations().pairs();
  write.rotations = rotations().offset(0).cos;
  write.page_keys = store.keys(page);
  write.page_values = store.values(page);
  return write;
}

void PagedKv::write(const Kernels& kernels, int head, int64_t rows, const float* keys, int64_t key_stride,
                    const float* values, int64_t value_stride) {
  const PageTable& entries = table(head);
  const int64_t begin = tokens_ - rows;
  size_t e = entries.size();
  while (e > 0 && entries[e - 1].first + entries[e - 1].filled > begin) --e;
  for (int64_t done = 0; done < rows; ++e) {
    const PageEntry& entry = entries[e];
    PageWrite write = page_write(entry.page);
    write.key_stride = key_stride;
    write.value_stride = value_stride;
    write.first = static_cast<int>(begin + done - entry.first);
    write.count = entry.filled - write.first;
    write.keys = keys + done * key_stride;
    write.values = values + done * value_stride;
    kernels.write_page(write);
    done += write.count;
  }
}

void PagedKv::accept(int64_t count) { truncate(opened_from_ + count); }

void PagedKv::truncate(int64_t tokens) {
  if (tokens < 0 || tokens > tokens_) fail("cannot truncate a layer of ", tokens_, " tokens to ", tokens);
  tokens_ = tokens;
  for (int head = 0; head < heads(); ++head) truncate_table(head, tokens);
  refresh_end();
}

void PagedKv::truncate_table(int head, int64_t tokens) {
  PageTable& table = tables_[head];
  CompactedTokens& compacted = compacted_[head];
  std::optional<size_t> changed;  // first entry whose full page is removed, shortened or moved
  int64_t end = tokens;           // end of the kept tokens, before they are shifted
  if (tokens < compacted.end()) {
    compacted.original_indices.resize(std::ranges::lower_bound(compacted.original_indices, tokens) -
                                      compacted.original_indices.begin());
    end = compacted.end();
  }
  size_t kept = table.size();
  while (kept > 0 && table[kept - 1].first >= end) {
    --kept;
    if (is_full(table[kept])) changed = kept;
  }
  table.truncate(kept);
  if (end != tokens) {
    changed = 0;
    compacted.begin += tokens - end;
    for (size_t e = 0; e < table.size(); ++e) {
      PageEntry& entry = table.edit(e);
      entry.first += tokens - end;
      entry.position += tokens - end;
    }
  }
  if (!table.empty()) {
    const size_t at = table.size() - 1;
    const int filled = static_cast<int>(std::min<int64_t>(table[at].filled, tokens - table[at].first));
    if (filled < table[at].filled) {
      if (is_full(table[at])) changed = std::min(changed.value_or(at), at);
      PageEntry& last = table.edit(at);
      last.filled = filled;
      last.mask &= page_bits(0, filled);
    }
  }
  if (changed) versions_[head].add(*changed);
  // the last entry was evicted and is now partly filled: the next token needs a page
  if (!table.empty() && table.back().page == kNoPage && !is_full(table.back()))
    table.set_page(table.size() - 1, config_.store->allocate());
}

void PagedKv::refresh_end() {
  end_position_ = next_position_ = 0;
  if (tables_.empty() || tokens_ == 0) return;
  if (tables_[0].empty()) {  // no visible token is left after compaction
    end_position_ = next_position_ = tokens_ + compacted_[0].shift;
    return;
  }
  next_position_ = tables_[0].back().position + tables_[0].back().filled;
  for (const PageEntry& entry : tables_[0]) end_position_ = std::max(end_position_, entry.position + entry.filled);
}

int64_t PagedKv::shift_to(int64_t position) const {
  if (tables_.empty() || tokens_ == 0) return 0;
  const PageTable& table = tables_[0];
  return position - (table.empty() ? compacted_[0].shift : table.front().position - table.front().first);
}

void PagedKv::check_move(int64_t position) const {
  check_position(position);
  const int64_t shift = shift_to(position);
  for (const PageEntry& entry : tables_[0]) {
    check_position(entry.position + shift);
    check_position(entry.position + entry.filled - 1 + shift);
  }
}

void PagedKv::move_to(int64_t position) {
  check_move(position);
  const int64_t shift = shift_to(position);
  if (shift == 0) return;
  for (PageTable& table : tables_)
    for (size_t e = 0; e < table.size(); ++e) table.edit(e).position += shift;
  for (CompactedTokens& compacted : compacted_) compacted.shift += shift;
  for (TableVersion& version : versions_) version.add(0);
  refresh_end();
}

void PagedKv::mask(int head, int64_t begin, int64_t end) {
  PageTable& table = tables_[head];
  for (size_t e = 0; e < table.size(); ++e) {
    const uint64_t bits = page_bits(begin - table[e].first, end - table[e].first);
    if (table[e].mask & bits) table.edit(e).mask &= ~bits;
  }
}

void PagedKv::evict(int head, std::span<const char> keep) {
  PageTable& table = tables_[head];
  for (size_t e = 0; e < table.size(); ++e) {
    const PageEntry entry = table[e];
    const auto end = std::min<int64_t>(entry.filled, std::ssize(keep) - entry.first);
    uint64_t mask = entry.mask;
    for (int64_t i = 0; i < end; ++i)
      if (!keep[entry.first + i]) mask &= ~(uint64_t{1} << i);
    if (mask != entry.mask) table.edit(e).mask = mask;
    if (mask == 0 && is_full(entry) && entry.page != kNoPage) table.set_page(e, {});
  }
}

void PagedKv::adopt(std::span<const PageId> pages) {
  assert(std::ssize(pages) == heads() && tokens_ % kPageTokens == 0);
  check_position(next_position_ + kPageTokens - 1);
  tokens_ += kPageTokens;  // before the tables, so that truncate can undo a partial failure
  for (int head = 0; head < heads(); ++head) {
    config_.store->retain(pages[head]);
    PageRef page(*config_.store, pages[head]);
    tables_[head].push_back({kNoPage, kPageTokens, tokens_ - kPageTokens, next_position_, ~uint64_t{0}},
                            std::move(page));
  }
  next_position_ += kPageTokens;
  end_position_ = std::max(end_position_, next_position_);
}

void PagedKv::adopt(const PagedKv& from, int64_t begin, int64_t end, int64_t position) {
  assert(shape() == from.shape() && heads() == from.heads() && begin >= 0 && begin <= end && end <= from.tokens());
  if (begin == end) return;
  const int64_t first = tokens_, index_shift = first - begin;
  tokens_ += end - begin;  // before the tables, so that truncate can undo a partial failure
  for (int head = 0; head < heads(); ++head) {
    const PageTable& table = from.table(head);
    auto entry = std::ranges::lower_bound(table, begin, {}, &PageEntry::first);
    assert(entry != table.end() && entry->first == begin);
    const int64_t shift = position - entry->position;
    for (; entry != table.end() && entry->first < end; ++entry) {
      PageEntry own = *entry;
      check_position(own.position + shift);
      check_position(own.position + shift + own.filled - 1);
      own.first += index_shift;
      own.position += shift;
      own.filled = static_cast<int>(std::min<int64_t>(own.filled, end - entry->first));
      own.mask &= page_bits(0, own.filled);
      PageRef page;
      if (entry->page != kNoPage) {
        config_.store->retain(entry->page);
        page = PageRef(*config_.store, entry->page);
      } else if (own.filled < kPageTokens) {
        page = config_.store->allocate();  // an evicted page that is now partly filled
      }
      tables_[head].push_back(own, std::move(page));
    }
  }
  refresh_end();
}

void PagedKv::restore(std::vector<PageTable> tables, std::vector<CompactedTokens> compacted, int64_t tokens) {
  assert(tokens_ == 0 && std::ssize(tables) == heads() && std::ssize(compacted) == heads());
  tables_ = std::move(tables);
  compacted_ = std::move(compacted);
  tokens_ = tokens;
  refresh_end();
}

size_t PagedKv::page_bytes() const {
  size_t pages = 0;
  for (const PageTable& table : tables_)
    for (const PageEntry& entry : table) pages += entry.page != kNoPage;
  return pages * shape().bytes();
}

size_t PagedKv::bytes() const {
  size_t bytes = page_bytes();
  for (const PageTable& table : tables_) bytes += table.bytes();
  return bytes;
}

}  // namespace fathom
