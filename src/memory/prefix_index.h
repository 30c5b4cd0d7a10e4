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

/// Blocks of tokens that sequences have read, found again by all tokens up to their end: a sequence that begins
/// with the same tokens adopts their pages and recurrent states ("Efficient Memory Management for Large Language
/// Model Serving with PagedAttention", 2023). Blocks that no sequence uses stay until reclaim() drops the least
/// recently used. Thread-safe; sequences must not change during a call.
class PrefixIndex {
 public:
  /// block: tokens of a block, a multiple of 64. If it is a multiple of the prefill chunk, too, a restored prefix
  /// has the bits of one that was read.
  explicit PrefixIndex(int64_t block);

  int64_t block() const { return block_; }
  /// Blocks held.
  size_t size() const;

  /// Adds the blocks of a sequence that are whole: all read as token ids, at positions from 0 on, nothing masked,
  /// evicted or compacted. Where layers are recurrent, only blocks at whose end a state has been kept can be
  /// restored to. space: tells sequences apart whose pages differ for the same tokens (Engine::prefix_space).
  void publish(const Sequence& sequence, uint64_t space);

  /// Makes an empty sequence begin with the blocks that there are of `tokens`. Returns the tokens restored, a
  /// multiple of the block, which is less than tokens.size(): the last token must be read for its logits.
  int64_t restore(Sequence& sequence, std::span<const int32_t> tokens, uint64_t space);

  /// Drops the least recently used block that no sequence and no later block needs. False: there is none.
  bool reclaim();

 private:
  struct Block {
    uint64_t key = 0, parent = 0;
    std::vector<int32_t> tokens;
    std::vector<std::vector<PageRef>> pages;  // [layers], [block / 64 · heads]: those of 64 tokens side by side
    std::vector<std::shared_ptr<const RecurrentState::Snapshot>> states;  // [layers] at its end; empty: not kept
    int children = 0;
    std::list<uint64_t>::iterator use;  // in used_
  };
  uint64_t key_of(uint64_t parent, std::span<const int32_t> tokens) const;
  Block* find(uint64_t parent, std::span<const int32_t> tokens);
  bool add(const Sequence& sequence, int64_t begin, uint64_t parent, std::vector<int32_t> tokens);
  static bool is_whole(const Sequence& sequence, int64_t begin, int64_t end);
  static bool is_used(const Block& block);
  void touch(Block& block);

  int64_t block_;
  mutable std::mutex mutex_;
  std::unordered_map<uint64_t, Block> blocks_;  // by key
  std::list<uint64_t> used_;                    // keys, the least recently used first
};

}  // namespace fathom
