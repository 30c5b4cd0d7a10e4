#include "memory/paged_kv.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <optional>

#include "base/error.h"
#include "kernels/page_copy.h"

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
  assert(!draft_);
  std::unique_ptr<PagedKv> copy(new PagedKv(config_));
  copy->tables_ = tables_;
  copy->compacted_ = compacted_;
  copy->versions_ = versions_;
  copy->tokens_ = tokens_;
  copy->next_position_ = next_position_;
  copy->end_position_ = end_position_;
  return copy;
}

void PagedKv::open(const OpenedTokens& tokens) {
  assert(!draft_);
  for (const int64_t position : tokens.positions) check_position(position);
  if (tokens.draft) return open_draft(*tokens.draft);
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
  if (draft_) return write_draft(kernels, head, keys, key_stride, values, value_stride);
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

DraftPages PagedKv::make_draft_pages(const DraftTree& tree, int head) const {
  int64_t offset = 0, position = next_position_;  // offset of the roots in their page; position of that page
  if (const PageTable& table = tables_[head]; !table.empty()) {
    const PageEntry& last = table.back();
    if (last.filled < kPageTokens && last.position + last.filled == next_position_) {
      offset = last.filled;
      position = last.position;
    }
  }
  DraftPages draft;
  draft.positions = {position, position + kPageTokens};
  for (int node = 0; node < tree.size(); ++node) {
    check_position(position + offset + tree.depth(node));
    draft.members[(offset + tree.depth(node)) / kPageTokens] |= uint64_t{1} << node;
  }
  for (size_t p = 0; p < 2; ++p)
    if (draft.members[p]) draft.pages[p] = config_.store->allocate();
  if (head > 0 && draft.positions == draft_pages_[0].positions) {
    draft.rotations = draft_pages_[0].rotations;
    return draft;
  }
  const size_t row = 2 * static_cast<size_t>(rotations().pairs());
  std::vector<float> rows(static_cast<size_t>(tree.size()) * row);
  for (int node = 0; node < tree.size(); ++node) {
    const auto at = static_cast<int>((offset + tree.depth(node)) % kPageTokens);
    std::copy_n(rotations().offset(at).cos, row, rows.data() + node * row);
  }
  draft.rotations = std::make_shared<const std::vector<float>>(std::move(rows));
  return draft;
}

void PagedKv::open_draft(const DraftTree& tree) {
  if (config_.page_tokens != kPageTokens)
    fail_usage("this model was trained with landmarks: drafts are not supported");
  draft_pages_.reserve(tables_.size());
  for (int head = 0; head < heads(); ++head) draft_pages_.push_back(make_draft_pages(tree, head));
  draft_ = &tree;
}

void PagedKv::close_draft() noexcept {
  draft_ = nullptr;
  draft_pages_.clear();
}

void PagedKv::write_draft(const Kernels& kernels, int head, const float* keys, int64_t key_stride,
                          const float* values, int64_t value_stride) {
  const DraftPages& draft = draft_pages_[head];
  for (int node = 0; node < draft_->size(); ++node) {
    PageWrite write = page_write(draft.pages[draft.members[1] >> node & 1].get());
    write.rotations = draft.rotations->data();
    write.first = node;
    write.count = 1;
    write.keys = keys + node * key_stride;
    write.values = values + node * value_stride;
    kernels.write_page(write);
  }
}

void PagedKv::accept(std::span<const int> path) {
  assert(draft_ && draft_->is_path(path));
  std::vector<int64_t> positions(path.size());
  for (size_t i = 0; i < path.size(); ++i) positions[i] = next_position_ + static_cast<int64_t>(i);
  const std::vector<DraftPages> drafts = std::move(draft_pages_);
  close_draft();
  const int64_t begin = tokens_;
  PageStore& store = *config_.store;
  const PageShape& shape = store.shape();
  OpenedTokens opened;
  opened.positions = positions;
  open(opened);
  for (int head = 0; head < heads(); ++head) {
    const PageTable& entries = table(head);
    size_t e = entries.size();
    while (e > 0 && entries[e - 1].first + entries[e - 1].filled > begin) --e;
    for (size_t i = 0; i < path.size(); ++i) {
      const int64_t index = begin + static_cast<int64_t>(i);
      while (index >= entries[e].first + entries[e].filled) ++e;
      const PageId from = drafts[head].pages[drafts[head].members[1] >> path[i] & 1].get(), to = entries[e].page;
      const auto at = static_cast<int>(index - entries[e].first);
      copy_key(shape.format, shape.key_dim, store.keys(from), path[i], store.keys(to), at);
      store.copy_value(from, path[i], to, at);
    }
  }
}

void PagedKv::truncate(int64_t tokens) {
  close_draft();
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
