#include "attend/key_clusters.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "attend/token_set.h"

namespace fathom {
namespace {

constexpr int64_t kCandidates = 5;    // candidates of k-means++ per centre
constexpr int64_t kProductRows = 64;  // vectors of one product with all centres

/// A random number generator with values in [0, 1), the same on every machine (SplitMix64).
class SplitMixRng {
 public:
  double next() {
    state_ += 0x9e3779b97f4a7c15;
    uint64_t z = state_;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return static_cast<double>((z ^ z >> 31) >> 11) * 0x1p-53;
  }

 private:
  uint64_t state_ = 0;
};

/// Returns the index of the largest of n numbers; the first of equal ones.
int64_t index_of_largest(const float* x, int64_t n) {
  constexpr int kLanes = 8;
  float most[kLanes];
  std::fill_n(most, kLanes, x[0]);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int l = 0; l < kLanes; ++l) most[l] = x[i + l] > most[l] ? x[i + l] : most[l];
  float largest = *std::max_element(most, most + kLanes);
  for (; i < n; ++i) largest = std::max(largest, x[i]);
  return std::find(x, x + n, largest) - x;
}

class DirectionClusters {
 public:
  DirectionClusters(const Kernels& kernels, std::span<const float> vectors, int dim, int64_t count)
      : kernels_(kernels),
        dim_(dim),
        count_(count),
        n_(std::ssize(vectors) / dim),
        units_(vectors.begin(), vectors.end()),
        labels_(n_, -1),
        products_(kProductRows * count),
        scratch_(kMultiplyScratch) {
    for (int64_t i = 0; i < n_; ++i) {
      float* unit = units_.data() + i * dim_;
      const float length = std::sqrt(dot(unit, unit, dim_));
      if (length > 0)
        for (int d = 0; d < dim_; ++d) unit[d] /= length;
    }
  }

  std::vector<int32_t> run(int iterations) {
    draw_centres();
    for (int i = 0; i < iterations && assign(); ++i) move_centres();
    return std::move(labels_);
  }

 private:
  /// Draws the initial centres by k-means++: the probability of a vector is proportional to its squared distance to
  /// the nearest centre drawn before.
  void draw_centres() {
    const int64_t drawn = std::min(n_, kCandidates * count_);
    const auto vector = [&](int64_t i) { return units_.data() + i * n_ / drawn * dim_; };
    std::vector<double> distances(drawn, 4);
    SplitMixRng rng;
    for (int64_t c = 0; c < count_; ++c) {
      double total = 0;
      for (const double distance : distances) total += distance;
      double left = rng.next() * total;
      int64_t next = 0;
      while (next + 1 < drawn && (left -= distances[next]) >= 0) ++next;
      const float* centre = vector(next);
      centres_.insert(centres_.end(), centre, centre + dim_);
      for (int64_t i = 0; i < drawn; ++i)
        distances[i] = std::min(distances[i], std::max(0.0, 2 - 2.0 * dot(vector(i), centre, dim_)));
    }
  }

  /// Assigns each vector to its nearest centre. Returns whether an assignment changed.
  bool assign() {
    std::vector<float> bias(count_);  // |u − c|² = 1 − 2 (u·c − |c|²/2)
    for (int64_t c = 0; c < count_; ++c)
      bias[c] = -dot(centres_.data() + c * dim_, centres_.data() + c * dim_, dim_) / 2;
    bool changed = false;
    for (int64_t first = 0; first < n_; first += kProductRows) {
      FloatProduct product;
      product.rows = std::min(kProductRows, n_ - first);
      product.cols = count_;
      product.depth = dim_;
      product.a = units_.data() + first * dim_;
      product.a_stride = product.b_stride = dim_;
      product.b = centres_.data();
      product.b_transposed = true;
      product.y = products_.data();
      product.y_stride = count_;
      product.add = true;
      for (int64_t r = 0; r < product.rows; ++r) std::ranges::copy(bias, product.y + r * count_);
      kernels_.multiply(product, scratch_.data());
      for (int64_t r = 0; r < product.rows; ++r) {
        const auto label = static_cast<int32_t>(index_of_largest(product.y + r * count_, count_));
        changed = changed || label != labels_[first + r];
        labels_[first + r] = label;
      }
    }
    return changed;
  }

  /// Moves each centre to the mean of its vectors. A centre without vectors does not move.
  void move_centres() {
    std::vector<double> sums(count_ * dim_);
    std::vector<int64_t> sizes(count_);
    for (int64_t i = 0; i < n_; ++i) {
      ++sizes[labels_[i]];
      for (int d = 0; d < dim_; ++d) sums[labels_[i] * dim_ + d] += units_[i * dim_ + d];
    }
    for (int64_t c = 0; c < count_; ++c) {
      if (sizes[c] == 0) continue;
      for (int d = 0; d < dim_; ++d)
        centres_[c * dim_ + d] = static_cast<float>(sums[c * dim_ + d] / static_cast<double>(sizes[c]));
    }
  }

  const Kernels& kernels_;
  int dim_;
  int64_t count_, n_;
  std::vector<float> units_, centres_;
  std::vector<int32_t> labels_;
  std::vector<float> products_;
  AlignedBuffer<float> scratch_;
};

struct VisibleKeys {
  std::vector<float> keys;      // rotated by their positions
  std::vector<int64_t> tokens;  // page-table entry · 64 + offset
};

/// Reads the keys of the visible tokens before sequence index `end`.
VisibleKeys visible_keys(const Kernels& kernels, const PagedKv& kv, int head, int64_t end) {
  const int dim = kv.shape().key_dim;
  const PageTable& table = kv.table(head);
  VisibleKeys visible;
  std::vector<float> page;
  for (size_t s = 0; s < table.size() && table[s].first < end; ++s) {
    const PageEntry& entry = table[s];
    if (entry.mask == 0) continue;
    read_rotated(kernels, kv, entry, page);
    for (int t = 0; t < entry.filled && entry.first + t < end; ++t) {
      if (!(entry.mask >> t & 1)) continue;
      const float* key = page.data() + t * dim;
      visible.keys.insert(visible.keys.end(), key, key + dim);
      visible.tokens.push_back(static_cast<int64_t>(s) * kPageTokens + t);
    }
  }
  return visible;
}

}  // namespace

std::vector<int32_t> cluster_directions(const Kernels& kernels, std::span<const float> vectors, int dim,
                                        int64_t count, int iterations) {
  return DirectionClusters(kernels, vectors, dim, count).run(iterations);
}

KeyClusters make_key_clusters(const Kernels& kernels, const PagedKv& kv, int head, int64_t end, double share,
                              int iterations) {
  const int dim = kv.shape().key_dim;
  const VisibleKeys visible = visible_keys(kernels, kv, head, end);
  KeyClusters clusters{end, {0}, {}, KeyTable(PageFormat::kF32, dim)};
  if (visible.tokens.empty()) return clusters;
  const auto n = std::ssize(visible.tokens);
  const auto count = std::clamp<int64_t>(std::llround(share * static_cast<double>(n)), 1, n);
  const std::vector<int32_t> labels = cluster_directions(kernels, visible.keys, dim, count, iterations);
  std::vector<std::vector<int64_t>> members(count);
  for (int64_t i = 0; i < n; ++i) members[labels[i]].push_back(i);
  std::vector<float> mean(dim);
  for (const std::vector<int64_t>& own : members) {
    if (own.empty()) continue;
    std::ranges::fill(mean, 0.0f);
    for (const int64_t i : own) {
      clusters.tokens.push_back(visible.tokens[i]);
      for (int d = 0; d < dim; ++d) mean[d] += visible.keys[i * dim + d] / static_cast<float>(own.size());
    }
    clusters.means.add(mean.data());
    clusters.begin.push_back(std::ssize(clusters.tokens));
  }
  return clusters;
}

void KeyClusters::save(ByteWriter& out) const {
  out.add(end);
  out.add_list(begin);
  out.add_list(tokens);
  means.save(out);
}

void KeyClusters::load(ByteReader& in, const SequenceLayer& layer, int head, int64_t context) {
  end = in.take_int("end of the clustered tokens", 0, context);
  const int64_t rows = layer.entries(head, context) * kPageTokens;
  begin = in.take_list_up_to<int64_t>(rows + 1);
  tokens = in.take_list_up_to<int64_t>(rows);
  in.check(!begin.empty() && begin.front() == 0 && begin.back() == std::ssize(tokens) &&
               std::ranges::adjacent_find(begin, std::ranges::greater()) == begin.end(),
           "expected clusters that divide ", tokens.size(), " tokens");
  for (const int64_t token : tokens)
    in.check(token >= 0 && token < rows, "expected tokens of clusters below ", rows, ", found ", token);
  const int64_t clusters = std::ssize(begin) - 1;
  means.load(in, clusters);
  in.check(means.size() == clusters, "expected ", clusters, " means of clusters, found ", means.size());
}

std::vector<float> cluster_shares(const Kernels& kernels, const KeyClusters& clusters,
                                  std::span<const float> queries, int64_t rows, int group, float scale) {
  const int64_t n = clusters.size(), dim = std::ssize(queries) / (rows * group);
  std::vector<float> best(n), scores(group * n), sums(group * n);
  for (int64_t r = 0; r < rows && n > 0; ++r) {
    clusters.means.score(kernels, queries.data() + r * group * dim, group, scores.data(), n);
    for (int q = 0; q < group; ++q) {
      float* own = scores.data() + q * n;
      float sum = 0, total = 0;
      kernels.scale(own, scale, n);
      kernels.exponentials(own, n, &sum);
      for (int64_t c = 0; c < n; ++c) total += own[c] * static_cast<float>(clusters.members(c));
      kernels.scale(own, 1 / (total * static_cast<float>(rows)), n);
      kernels.add(sums.data() + q * n, own, n);
    }
  }
  for (int q = 0; q < group; ++q)
    for (int64_t c = 0; c < n; ++c) best[c] = std::max(best[c], sums[q * n + c]);
  return best;
}

}  // namespace fathom
