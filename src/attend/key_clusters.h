#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "attend/key_scores.h"

namespace fathom {

/// Clusters vectors by direction with k-means on their unit vectors. k-means++ draws the initial centres from five
/// vectors per centre, so that its cost is O(count²). Runs at most `iterations` steps and stops early when no
/// vector changes its cluster. vectors: [n, dim]; count ≤ n. Returns the cluster of each vector, in [0, count).
/// Deterministic.
std::vector<int32_t> cluster_directions(const Kernels& kernels, std::span<const float> vectors, int dim,
                                        int64_t count, int iterations);

/// Clusters of the keys of a page table: members and mean keys. There are no empty clusters.
struct KeyClusters {
  int64_t end = 0;              // sequence index: all visible tokens before it are in clusters
  std::vector<int64_t> begin;   // [clusters + 1] index of the first member in tokens
  std::vector<int64_t> tokens;  // page-table entry · 64 + offset, by cluster
  KeyTable means;               // [clusters] rotated, not normalised

  int64_t size() const { return means.size(); }
  int64_t members(int64_t cluster) const { return begin[cluster + 1] - begin[cluster]; }
  size_t bytes() const { return bytes_of(begin) + bytes_of(tokens) + means.bytes(); }
  void save(ByteWriter& out) const;
  /// Restores what save() wrote, for one head of a layer. Throws Error for members that are not among the first
  /// `context` tokens.
  void load(ByteReader& in, const SequenceLayer& layer, int head, int64_t context);
};

/// Clusters the keys of the visible tokens before sequence index `end` into share · tokens clusters.
KeyClusters make_key_clusters(const Kernels& kernels, const PagedKv& kv, int head, int64_t end, double share,
                              int iterations);

/// Returns [clusters]: the attention probability that one key of each cluster would get if all its keys equalled
/// their mean. The result is averaged over the rows, then the maximum over the heads of the group is taken.
/// queries: [rows, group, key_dim], rotated.
std::vector<float> cluster_shares(const Kernels& kernels, const KeyClusters& clusters,
                                  std::span<const float> queries, int64_t rows, int group, float scale);

}  // namespace fathom
