#include "attend/key_scores.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "kernels/quantize.h"

namespace fathom {
namespace {

constexpr float kMasked = -std::numeric_limits<float>::infinity();
constexpr size_t kTaskEntries = 32;   // page-table entries per task, 2,048 tokens: long contiguous reads
constexpr size_t kTaskTokens = 4096;  // tokens per task when votes are summed over heads

/// Describes the k highest scores: all scores above `least`, and those equal to it except the first `skip`.
struct ScoreThreshold {
  float least;
  int64_t skip;
};

/// Maps floats to integers of the same order; −∞ and NaN map to 0.
uint32_t ordered(float x) {
  const auto bits = std::bit_cast<uint32_t>(x + 0.0f);  // −0 is 0
  const uint32_t number = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return x > kMasked ? number : 0;
}

/// A subset of the scores whose k-th highest is the k-th highest of all.
struct RankCandidates {
  std::vector<float> scores;  // above −∞
  int64_t k;                  // rank within the subset
};
/// Reduces the scores to those in one bin of a histogram, so that few remain to be sorted.
RankCandidates candidates_of(std::span<const float> scores, int64_t k) {
  // Each row has separate counts, so that consecutive increments of the same bin do not depend on each other.
  constexpr int kBits = 11, kShift = 32 - kBits, kRows = 4;
  constexpr size_t kFew = 512;  // up to this many scores, a direct selection is faster than a histogram
  uint32_t bin = 0;
  int64_t higher = 0;  // scores in higher bins
  if (scores.size() > kFew) {
    std::array<std::array<int32_t, 1 << kBits>, kRows> counts{};
    for (size_t i = 0; i < scores.size(); ++i) ++counts[i % kRows][ordered(scores[i]) >> kShift];
    for (bin = (1 << kBits) - 1; bin > 0; --bin) {
      int64_t here = 0;
      for (const auto& row : counts) here += row[bin];
      if (higher + here >= k) break;
      higher += here;
    }
  }
  RankCandidates candidates{{}, k - higher};
  for (const float score : scores) {
    const uint32_t number = ordered(score);
    if (number > 0 && (scores.size() <= kFew || number >> kShift == bin)) candidates.scores.push_back(score);
  }
  return candidates;
}

ScoreThreshold threshold_of(std::span<const float> scores, int64_t k) {
  auto [candidates, rank] = candidates_of(scores, k);
  if (rank > std::ssize(candidates)) return {kMasked, std::ssize(scores)};  // fewer than k scores are above −∞
  std::ranges::nth_element(candidates, candidates.begin() + rank - 1, std::greater());
  const float least = candidates[rank - 1];
  const int64_t higher = std::ranges::count_if(candidates, [&](float score) { return score > least; });
  return {least, std::ranges::count(candidates, least) - (rank - higher)};
}

}  // namespace

void rotate_query(const LayerQueries& queries, int64_t row, int head, float* spare, float* out) {
  std::copy_n(queries.query(row, head), queries.kv->shape().key_dim, out);
  const int pairs = queries.kv->rotations().pairs();
  if (pairs == 0) return;
  const PositionRotations::View rotation = queries.kv->rotations().at(queries.positions[row], spare);
  queries.kernels->rotate_pairs(out, rotation.cos, rotation.sin, pairs);
}

void inverse_rotate(const Kernels& kernels, const PositionRotations& rotations, int64_t position, int dim,
                    std::span<float> queries) {
  const int pairs = rotations.pairs();
  if (pairs == 0) return;
  std::vector<float> spare(3 * static_cast<size_t>(pairs));
  const PositionRotations::View rotation =
      rotations.inverse(rotations.at(position, spare.data()), spare.data() + 2 * pairs);
  for (float* x = queries.data(); x < queries.data() + queries.size(); x += dim)
    kernels.rotate_pairs(x, rotation.cos, rotation.sin, pairs);
}

KeyScores::KeyScores(const Kernels& kernels, const PageStore& store, const PositionRotations& rotations)
    : kernels_(kernels),
      store_(store),
      rotations_(rotations),
      tile_(static_cast<size_t>(kPageTokens) * store.shape().key_dim) {}

const float* KeyScores::of_page(PageId page, int64_t position, const float* queries, int count) {
  return of_keys(store_.keys(page), position, queries, count);
}

const float* KeyScores::of_keys(const std::byte* keys, int64_t position, const float* queries, int count) {
  rotated_.assign(queries, queries + static_cast<int64_t>(count) * store_.shape().key_dim);
  inverse_rotate(kernels_, rotations_, position, store_.shape().key_dim, rotated_);
  scores_.resize(static_cast<size_t>(count) * kPageTokens);
  ScoreTask task;
  task.format = store_.shape().format;
  task.key_dim = store_.shape().key_dim;
  task.keys = keys;
  task.queries = rotated_.data();
  task.queries_count = count;
  task.scores = scores_.data();
  kernels_.score_page(task, tile_.data());
  return scores_.data();
}

void KeyScores::of_entries(const PageTable& table, size_t begin, size_t end, const ScoreRange& range,
                           const float* queries, int count, float* out, int64_t stride) {
  for (size_t s = begin; s < end; ++s) {
    const PageEntry& entry = table[s];
    const int64_t first = std::max(entry.first, range.begin),
                  last = std::min(entry.first + entry.filled, range.end);
    if (first >= last) continue;
    const int64_t position = range.position < 0 ? entry.position : range.position;
    const float* scores = entry.mask ? of_page(entry.page, position, queries, count) : nullptr;
    const uint64_t in_range = page_bits(first - entry.first, last - entry.first);
    const bool all_visible = (entry.mask & in_range) == in_range;
    for (int q = 0; q < count; ++q) {
      float* to = out + q * stride - range.begin;
      const float* from = scores ? scores + static_cast<int64_t>(q) * kPageTokens : nullptr;
      if (all_visible) {
        std::copy(from + (first - entry.first), from + (last - entry.first), to + first);
        continue;
      }
      for (int64_t t = first; t < last; ++t)
        to[t] = entry.mask >> (t - entry.first) & 1 ? from[t - entry.first] : kMasked;
    }
  }
}

void score_layer(const LayerQueries& layer, const ScoreRange& range, const float* queries, int count,
                 ThreadPool& pool, std::vector<float>& scores) {
  const PagedKv& kv = *layer.kv;
  const int64_t stride = range.end - range.begin;
  const size_t entries = kv.table(0).size(), parts = (entries + kTaskEntries - 1) / kTaskEntries;
  const int dim = kv.shape().key_dim;
  scores.resize(static_cast<size_t>(kv.heads()) * count * stride);
  pool.parallel_for(parts * kv.heads(), [&](size_t i, int) {
    const size_t head = i / parts, begin = i % parts * kTaskEntries;
    KeyScores keys(*layer.kernels, kv.store(), layer.kv->rotations());
    keys.of_entries(kv.table(static_cast<int>(head)), begin, std::min(begin + kTaskEntries, entries), range,
                    queries + head * count * dim, count, scores.data() + head * count * stride, stride);
  });
}

void mask_scores(const PageTable& table, int64_t begin, std::span<float> scores) {
  const int64_t none = (table.empty() ? begin + std::ssize(scores) : table.front().first) - begin;
  std::fill_n(scores.begin(), std::clamp<int64_t>(none, 0, std::ssize(scores)), kMasked);
  for (const PageEntry& entry : table) {
    if (entry.mask == page_bits(0, entry.filled)) continue;
    const int64_t end = std::min<int64_t>(entry.first + entry.filled, begin + std::ssize(scores));
    for (int64_t t = std::max(entry.first, begin); t < end; ++t)
      if (!(entry.mask >> (t - entry.first) & 1)) scores[t - begin] = kMasked;
  }
}

void KeyTable::add(const float* key) {
  const size_t page_bytes = page_key_bytes(format_, key_dim_), page = size_ / kPageTokens;
  if (size_ % kPageTokens == 0) pages_.resize(pages_.size() + page_bytes);
  std::byte* to = pages_.data() + page * page_bytes;
  for (int d = 0; d < key_dim_; ++d) {
    const int64_t at = key_pair_index(key_dim_, d / 2, static_cast<int>(size_ % kPageTokens)) * 2 + d % 2;
    if (format_ == PageFormat::kF32) {
      reinterpret_cast<float*>(to)[at] = key[d];
    } else {
      reinterpret_cast<uint16_t*>(to)[at] = f32_to_bf16(key[d]);
    }
  }
  ++size_;
}

void KeyTable::shorten(int64_t size) {
  if (size >= size_) return;
  size_ = size;
  pages_.resize(page_count(size) * page_key_bytes(format_, key_dim_));
}

void KeyTable::save(ByteWriter& out) const {
  out.add(size_);
  out.add_bytes(pages_);
}

void KeyTable::load(ByteReader& in, int64_t most) {
  size_ = in.take_int("keys", 0, most);
  const std::span<const std::byte> pages = in.take_bytes(page_count(size_) * page_key_bytes(format_, key_dim_));
  pages_.assign(pages.begin(), pages.end());
}

void KeyTable::score(const Kernels& kernels, const float* queries, int count, float* out, int64_t stride) const {
  std::vector<float> scores(static_cast<size_t>(count) * kPageTokens);
  AlignedBuffer<float> tile(static_cast<size_t>(kPageTokens) * key_dim_);
  for (int64_t first = 0; first < size_; first += kPageTokens) {
    const std::byte* keys = pages_.data() + first / kPageTokens * page_key_bytes(format_, key_dim_);
    kernels.score_page({format_, key_dim_, keys, queries, count, scores.data()}, tile.data());
    const int64_t n = std::min<int64_t>(kPageTokens, size_ - first);
    for (int q = 0; q < count; ++q) std::copy_n(scores.data() + q * kPageTokens, n, out + q * stride + first);
  }
}

void softmax_scores(const Kernels& kernels, std::span<float> scores, float scale) {
  const float largest = scores.empty() ? kMasked : *std::ranges::max_element(scores);
  if (!(largest > kMasked)) return std::fill(scores.begin(), scores.end(), 0.0f);
  const auto n = static_cast<int64_t>(scores.size());
  kernels.scale(scores.data(), scale, n);
  kernels.softmax(scores.data(), n);
}

std::vector<float> soft_vote(const Kernels& kernels, std::span<float> scores, int heads, float scale,
                             ThreadPool& pool) {
  const size_t tokens = scores.size() / heads;
  pool.parallel_for(heads,
                    [&](size_t h, int) { softmax_scores(kernels, scores.subspan(h * tokens, tokens), scale); });
  std::vector<float> votes(tokens);
  pool.parallel_for((tokens + kTaskTokens - 1) / kTaskTokens, [&](size_t i, int) {
    const size_t begin = i * kTaskTokens, count = std::min(kTaskTokens, tokens - begin);
    for (int h = 0; h < heads; ++h)
      kernels.add(votes.data() + begin, scores.data() + h * tokens + begin, static_cast<int64_t>(count));
  });
  return votes;
}

void max_pool(std::span<float> scores, int64_t width) {
  if (width <= 1) return;
  const std::vector<float> old(scores.begin(), scores.end());
  const int64_t n = std::ssize(scores), reach = std::min(width / 2, n - 1);
  // One pass over all scores per distance: these loops vectorise, a search around each score does not.
  for (int64_t distance = 1; distance <= reach; ++distance) {
    for (int64_t i = distance; i < n; ++i) scores[i] = std::max(scores[i], old[i - distance]);
    for (int64_t i = 0; i < n - distance; ++i) scores[i] = std::max(scores[i], old[i + distance]);
  }
}

void mean_pool(std::span<float> scores, int64_t width) {
  if (width <= 1) return;
  const std::vector<float> old(scores.begin(), scores.end());
  const int64_t n = std::ssize(scores), reach = width / 2;
  for (int64_t i = 0; i < n; ++i) {
    float sum = 0;
    for (int64_t j = std::max<int64_t>(0, i - reach); j < std::min(n, i + reach + 1); ++j) sum += old[j];
    scores[i] = sum / static_cast<float>(width);
  }
}

std::vector<int64_t> top_scores(std::span<const float> scores, int64_t k) {
  std::vector<int64_t> selected;
  if (k <= 0) return selected;
  const ScoreThreshold threshold = threshold_of(scores, k);
  selected.resize(std::min<int64_t>(k, std::ssize(scores)) +
                  1);  // one spare element, because the branchless loop may write beyond the last index
  int64_t count = 0, skip = threshold.skip;
  for (int64_t i = 0; i < std::ssize(scores); ++i) {
    const bool equal = scores[i] == threshold.least;
    selected[count] = i;
    count += scores[i] > threshold.least || (equal && skip <= 0) ? 1 : 0;
    skip -= equal ? 1 : 0;
  }
  selected.resize(count);
  return selected;
}

double cosine_of(std::span<const float> x, std::span<const float> y) {
  double xy = 0, xx = 0, yy = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    xy += static_cast<double>(x[i]) * y[i];
    xx += static_cast<double>(x[i]) * x[i];
    yy += static_cast<double>(y[i]) * y[i];
  }
  return xx > 0 && yy > 0 ? xy / std::sqrt(xx * yy) : 1;
}

}  // namespace fathom
