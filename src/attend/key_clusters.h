#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "attend/key_scores.h"

namespace fathom {

/// Vectors in groups by direction: k-means on their unit vectors. The centres to begin with are drawn by k-means++
/// from five vectors for each (the number of comparisons then grows with the square of `count` only); at most
/// `iterations` steps, fewer when nothing moves. vectors: [n, dim]; returns the group of each, below count ≤ n.
/// Same input, same groups.
std::vector<int32_t> cluster_directions(const Kernels& kernels, std::span<const float> vectors, int dim,
                                        int64_t count, int iterations);

/// Clusters of the keys of a table: what they contain and their means.
struct KeyClusters {
  int64_t end = 0;              // tokens below are in clusters, hidden ones aside
  std::vector<int64_t> begin;   // [clusters + 1] into tokens
  std::vector<int64_t> tokens;  // entry · 64 + offset
  KeyTable means;               // rotated, not normalised; of clusters with members only

  int64_t size() const { return means.size(); }
  int64_t members(int64_t cluster) const { return begin[cluster + 1] - begin[cluster]; }
};

/// Clusters of the tokens below `end`, one for each 1/share of them.
KeyClusters make_key_clusters(const Kernels& kernels, const PagedKv& kv, int head, int64_t end, double share,
                              int iterations);

/// What share of a head's attention a single key of each cluster would get if all its keys were the mean: the mean
/// over the rows, the largest of the group's heads. queries: [rows, group, key_dim], rotated; returns [clusters].
std::vector<float> cluster_shares(const Kernels& kernels, const KeyClusters& clusters,
                                  std::span<const float> queries, int64_t rows, int group, float scale);

}  // namespace fathom
