#pragma once

#include <span>
#include <vector>

#include "attend/queries.h"
#include "base/aligned.h"
#include "base/thread_pool.h"

namespace fathom {

/// The keys of a layer before rotation, heads joined, in `rank` numbers a token: K ≈ (K·V)·Vᵀ, where V are K's
/// right singular vectors of the largest singular values. No K' of this rank is nearer to K.
class LowRankKeys {
 public:
  /// Of tokens [0, end) of the sequence in the layer of `queries`; what is hidden counts as zero. Page-table
  /// entries are those of all heads: no page table of the layer may be compacted. Takes O(end · (kv_heads · key_dim)²)
  /// and, on one thread, O((kv_heads · key_dim)³).
  LowRankKeys(const LayerQueries& queries, int64_t end, int rank, ThreadPool& pool);

  int rank() const { return rank_; }
  /// The keys of some tokens of a head, not rotated. rows: 64 · entry + offset of each; keys: [rows, key_dim].
  void rebuild(const Kernels& kernels, int head, std::span<const int64_t> rows, float* keys) const;

 private:
  int rank_, key_dim_;
  std::vector<float> axes_;    // V: [kv_heads, key_dim, rank]
  std::vector<float> shares_;  // K·V: [entries, 64, rank]
};

/// Keys of one head rebuilt from their low-rank form, laid out as in pages. Those of the latest step are kept, for
/// the next one asks for most of them again. A copy begins empty: a fork makes its own.
class RebuiltKeys {
 public:
  RebuiltKeys() = default;
  RebuiltKeys(const RebuiltKeys&) {}

  /// Afterwards these tokens of a head are there, and no page without any. tokens: a mask for each of the first
  /// page-table entries. Other tokens of such a page have its own keys, or older rebuilt ones.
  void keep(const LayerQueries& queries, int head, std::span<const uint64_t> tokens, const LowRankKeys& from);
  /// The keys of a entry's page, valid until the next keep(); null: none of its tokens are there.
  const std::byte* page(uint32_t entry) const { return entry < pages_.size() ? pages_[entry].keys.data() : nullptr; }

 private:
  struct Page {
    AlignedBuffer<std::byte> keys;
    uint64_t rebuilt = 0;  // tokens
  };
  void let_go(std::span<const uint64_t> tokens);
  void write(const LayerQueries& queries);

  std::vector<Page> pages_;                      // by entry
  std::vector<AlignedBuffer<std::byte>> spare_;  // of pages that were let go
  std::vector<int64_t> missing_;                 // rows that are not there yet
  std::vector<float> made_;                      // their keys
};

}  // namespace fathom
