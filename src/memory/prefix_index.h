#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "memory/sequence.h"

namespace fathom {

/// Returns the key of a block of tokens: a hash of the key of the block before it and of its tokens.
uint64_t block_key(uint64_t parent, std::span<const int32_t> tokens);
/// Returns whether tokens [begin, end), multiples of 64, were read as ids and are visible, at positions equal to
/// their indices, in full pages of 64.
bool is_complete_block(const Sequence& sequence, int64_t begin, int64_t end);

/// An index of prefixes that sequences have read, in blocks of tokens. The key of a block is a chained hash of all
/// tokens up to its end. A sequence that begins with the same tokens adopts the pages and recurrent states of the
/// blocks ("Efficient Memory Management for Large Language Model Serving with PagedAttention", 2023). Blocks that
/// no sequence uses are kept until reclaim() evicts them, least recently used first. Thread-safe; sequences must
/// not change during a call.
class PrefixIndex {
 public:
  /// block: tokens per block, a multiple of 64. If it is also a multiple of the prefill chunk, a restored prefix is
  /// bit-identical to one that was read. Throws Error (usage) if it is not a positive multiple of 64.
  explicit PrefixIndex(int64_t block);

  int64_t block() const { return block_; }
  /// Number of blocks in the index.
  size_t size() const;

  /// Adds the leading complete blocks of a sequence. A block is complete if all its tokens were read as token ids,
  /// their positions equal their indices, and none is masked, evicted or compacted. A model with recurrent layers
  /// can only be restored to the end of a block for which all recurrent layers have a checkpoint. space: a hash
  /// that separates sequences whose pages differ for the same tokens, such as those with another page format.
  void publish(const Sequence& sequence, uint64_t space);

  /// Restores the longest indexed prefix of `tokens` into an empty sequence. Returns the number of restored tokens:
  /// a multiple of block(), less than tokens.size(), because the last token must be read to get its logits. Throws
  /// Error if the sequence is not empty, and std::bad_alloc.
  int64_t restore(Sequence& sequence, std::span<const int32_t> tokens, uint64_t space);

  /// Evicts the least recently used block that no sequence and no later block uses. Returns false if there is none.
  bool reclaim();

 private:
  struct Block {
    uint64_t key = 0, parent = 0;
    std::vector<int32_t> tokens;
    std::vector<std::vector<PageRef>> pages;  // [layers][block / 64 · heads]: the heads of 64 tokens are adjacent
    // [layers] recurrent states at the end of the block; empty: none stored
    std::vector<std::shared_ptr<const RecurrentState::Snapshot>> states;
    int children = 0;                   // blocks whose parent this is
    std::list<uint64_t>::iterator use;  // in lru_
  };
  Block* find(uint64_t parent, std::span<const int32_t> tokens);
  bool add(const Sequence& sequence, int64_t begin, uint64_t parent, std::vector<int32_t> tokens);
  static bool in_use(const Block& block);
  void mark_used(Block& block);

  int64_t block_;
  mutable std::mutex mutex_;
  std::unordered_map<uint64_t, Block> blocks_;  // by key
  std::list<uint64_t> lru_;                     // keys, least recently used first
};

}  // namespace fathom
