#pragma once

#include <span>
#include <vector>

#include "attend/queries.h"
#include "base/aligned.h"
#include "base/thread_pool.h"

namespace fathom {

/// A low-rank approximation of a layer's unrotated keys, with the heads concatenated: K ≈ (K·V)·Vᵀ, where the
/// columns of V are the right singular vectors of K with the `rank` largest singular values ("ShadowKV: KV Cache in
/// Shadows for High-Throughput Long-Context LLM Inference", 2024). It is the best approximation of this rank and
/// stores `rank` numbers per token.
class LowRankKeys {
 public:
  /// Approximates the keys of tokens [0, end) of the sequence in the layer of `queries`; masked keys count as zero.
  /// The page tables of all heads must have the same entries, so none of them may be compacted. Takes O(end · w²)
  /// on all threads and O(w³) on one thread, with w = kv_heads · key_dim.
  LowRankKeys(const LayerQueries& queries, int64_t end, int rank, ThreadPool& pool);

  /// Reads what save() wrote for the first `end` tokens of a layer. Throws Error for another number of numbers.
  LowRankKeys(ByteReader& in, const SequenceLayer& layer, int64_t end, int rank);
  void save(ByteWriter& out) const;

  int rank() const { return rank_; }
  size_t bytes() const { return bytes_of(axes_) + bytes_of(coefficients_); }
  /// Computes unrotated keys of one head from the approximation. rows: 64 · entry + offset of each token; keys:
  /// [rows, key_dim].
  void rebuild(const Kernels& kernels, int head, std::span<const int64_t> rows, float* keys) const;

 private:
  int rank_, key_dim_;
  std::vector<float> axes_;          // V: [kv_heads, key_dim, rank]
  std::vector<float> coefficients_;  // K·V: [entries, 64, rank]
};

/// A cache of one head's keys rebuilt from their low-rank form, in the layout of pages. It holds the keys of the
/// latest step; the next step needs most of them again. A copy (a fork's) starts empty.
class RebuiltKeys {
 public:
  RebuiltKeys() = default;
  RebuiltKeys(const RebuiltKeys&) {}

  /// Rebuilds the keys of these tokens of a head that are not in the cache, and releases pages without any of these
  /// tokens. tokens: a mask for each of the first page-table entries. The other tokens of a cached page have their
  /// stored keys, or keys rebuilt earlier.
  void keep(const LayerQueries& queries, int head, std::span<const uint64_t> tokens, const LowRankKeys& from);
  size_t bytes() const;
  /// Returns the keys of an entry's page, valid until the next keep(); null if none of its tokens is cached.
  const std::byte* page(uint32_t entry) const {
    return entry < pages_.size() ? pages_[entry].keys.data() : nullptr;
  }

 private:
  struct Page {
    AlignedBuffer<std::byte> keys;
    uint64_t rebuilt = 0;  // mask of the rebuilt tokens
  };
  void release_pages(std::span<const uint64_t> tokens);
  void write(const LayerQueries& queries);

  std::vector<Page> pages_;                      // by page-table entry
  std::vector<AlignedBuffer<std::byte>> spare_;  // buffers of released pages
  std::vector<int64_t> missing_;                 // rows that keep() rebuilds
  std::vector<float> rebuilt_;                   // [missing, key_dim] their keys
};

}  // namespace fathom
