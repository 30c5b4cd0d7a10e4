#include "memory/prefix_index.h"

#include <algorithm>

#include "base/content_hash.h"
#include "base/error.h"

namespace fathom {

PrefixIndex::PrefixIndex(int64_t block) : block_(block) {
  if (block <= 0 || block % kPageTokens != 0)
    fail_usage("prefix block: expected a positive multiple of ", kPageTokens, " tokens, found ", block);
}

size_t PrefixIndex::size() const {
  const std::lock_guard lock(mutex_);
  return blocks_.size();
}

uint64_t block_key(uint64_t parent, std::span<const int32_t> tokens) {
  ContentHash hash;
  hash.add(parent);
  hash.add(std::string_view(reinterpret_cast<const char*>(tokens.data()), tokens.size_bytes()));
  return hash.value();
}

/// Returns the block of these tokens after `parent`, or null. Compares the tokens as well, in case of a hash
/// collision.
PrefixIndex::Block* PrefixIndex::find(uint64_t parent, std::span<const int32_t> tokens) {
  const auto found = blocks_.find(block_key(parent, tokens));
  if (found == blocks_.end()) return nullptr;
  Block& block = found->second;
  return block.parent == parent && std::ranges::equal(block.tokens, tokens) ? &block : nullptr;
}

void PrefixIndex::mark_used(Block& block) { lru_.splice(lru_.end(), lru_, block.use); }

bool is_complete_block(const Sequence& sequence, int64_t begin, int64_t end) {
  for (int layer = 0; layer < sequence.layers(); ++layer) {
    const PagedKv* kv = sequence.paged(layer);
    for (int head = 0; kv && head < kv->heads(); ++head) {
      const PageTable& table = kv->table(head);
      if (!kv->compacted(head).original_indices.empty() || std::ssize(table) * kPageTokens < end) return false;
      for (int64_t at = begin; at < end; at += kPageTokens) {
        const PageEntry& entry = table[at / kPageTokens];
        if (entry.first != at || entry.position != at || entry.filled != kPageTokens || entry.mask != ~uint64_t{0})
          return false;
      }
    }
  }
  for (int64_t i = begin; i < end; ++i)
    if (sequence.ids()[i] < 0) return false;
  return true;
}

/// Adds the block that begins at token `begin`. Returns false if another block has the same key.
bool PrefixIndex::add(const Sequence& sequence, int64_t begin, uint64_t parent, std::vector<int32_t> tokens) {
  Block block;
  block.key = block_key(parent, tokens);
  block.parent = parent;
  block.tokens = std::move(tokens);
  block.pages.resize(sequence.layers());
  bool has_states = true;  // all recurrent layers have a checkpoint at the end of the block
  std::vector<std::shared_ptr<const RecurrentState::Snapshot>> states(sequence.layers());
  for (int layer = 0; layer < sequence.layers(); ++layer) {
    if (const PagedKv* kv = sequence.paged(layer)) {
      const std::shared_ptr<PageStore> store = kv->shared_store();
      for (int64_t at = begin; at < begin + block_; at += kPageTokens) {
        for (int head = 0; head < kv->heads(); ++head) {
          const PageId page = kv->table(head)[at / kPageTokens].page;
          store->retain(page);
          block.pages[layer].emplace_back(*store, page);
        }
      }
    }
    if (const RecurrentState* state = sequence.recurrent(layer)) {
      if (state->floor(begin + block_) != begin + block_) {
        has_states = false;
      } else {
        states[layer] = state->snapshot(begin + block_);
      }
    }
  }
  if (has_states && sequence.has_recurrent_layers()) block.states = std::move(states);
  const auto [at, added] = blocks_.emplace(block.key, std::move(block));
  if (!added) return false;
  lru_.push_back(at->first);
  at->second.use = std::prev(lru_.end());
  if (const auto before = blocks_.find(parent); before != blocks_.end()) ++before->second.children;
  return true;
}

void PrefixIndex::publish(const Sequence& sequence, uint64_t space) {
  const std::lock_guard lock(mutex_);
  uint64_t parent = space;
  for (int64_t begin = 0; begin + block_ <= sequence.tokens(); begin += block_) {
    std::vector<int32_t> tokens = sequence.ids().copy(begin, begin + block_);
    if (Block* known = find(parent, tokens)) {
      mark_used(*known);
      parent = known->key;
      continue;
    }
    if (!is_complete_block(sequence, begin, begin + block_)) return;
    const uint64_t key = block_key(parent, tokens);
    if (!add(sequence, begin, parent, std::move(tokens))) return;
    parent = key;
  }
}

int64_t PrefixIndex::restore(Sequence& sequence, std::span<const int32_t> tokens, uint64_t space) {
  if (sequence.tokens() > 0)
    fail("cannot restore a prefix: expected an empty sequence, found one of ", sequence.tokens(), " tokens");
  const std::lock_guard lock(mutex_);
  std::vector<Block*> found;
  size_t usable = 0;  // blocks up to the last one with recurrent states, if the sequence has recurrent layers
  for (uint64_t parent = space;;) {
    const int64_t begin = std::ssize(found) * block_;
    if (begin + block_ >= std::ssize(tokens)) break;
    Block* block = find(parent, tokens.subspan(begin, block_));
    if (!block || std::ssize(block->pages) != sequence.layers()) break;
    found.push_back(block);
    parent = block->key;
    if (!sequence.has_recurrent_layers() || !block->states.empty()) usable = found.size();
  }
  found.resize(usable);
  for (const Block* block : found) {
    mark_used(*const_cast<Block*>(block));
    for (int64_t at = 0; at < block_; at += kPageTokens) {
      std::vector<std::vector<PageId>> pages(sequence.layers());
      for (int layer = 0; layer < sequence.layers(); ++layer) {
        const PagedKv* kv = sequence.paged(layer);
        for (int head = 0; kv && head < kv->heads(); ++head)
          pages[layer].push_back(block->pages[layer][at / kPageTokens * kv->heads() + head].get());
      }
      sequence.adopt(pages, std::span(block->tokens).subspan(at, kPageTokens));
    }
    if (!block->states.empty()) sequence.adopt_states(block->states);
  }
  return static_cast<int64_t>(usable) * block_;
}

/// Returns whether a sequence holds one of the block's pages or states. Evicting the block would not free those.
bool PrefixIndex::in_use(const Block& block) {
  for (const auto& layer : block.pages)
    for (const PageRef& page : layer)
      if (page.owners() > 1) return true;
  return std::ranges::any_of(block.states, [](const auto& state) { return state && state.use_count() > 1; });
}

bool PrefixIndex::reclaim() {
  const std::lock_guard lock(mutex_);
  for (const uint64_t key : lru_) {
    const Block& block = blocks_.at(key);
    if (block.children > 0 || in_use(block)) continue;
    if (const auto before = blocks_.find(block.parent); before != blocks_.end()) --before->second.children;
    lru_.erase(block.use);
    blocks_.erase(key);
    return true;
  }
  return false;
}

}  // namespace fathom
