#include "evict/token_scoring.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <numeric>

#include "attend/key_scores.h"
#include "attend/token_set.h"

namespace fathom {
namespace {

constexpr int64_t kRowsAtOnce = 8;  // query rows whose scores of all tokens are held at the same time

}  // namespace

void each_key(const LayerTokens& layer, int head, const std::function<void(int64_t, const float*)>& visit) {
  const PageStore& store = layer.kv.store();
  std::vector<float> keys;
  for (const PageEntry& entry : layer.table(head)) {
    if (entry.mask == 0) continue;
    read_rotated(layer.work.kernels, layer.kv, entry, keys);
    for (int t = 0; t < entry.filled; ++t) {
      if (entry.mask >> t & 1) visit(entry.first + t, keys.data() + t * store.shape().key_dim);
    }
  }
}

void add_attention(const PagedKv& kv, int head, const Kernels& kernels, std::span<const float> queries,
                   std::span<const int64_t> tokens, int group, float scale, std::span<float> sums) {
  const PageTable& table = kv.table(head);
  const int64_t rows = std::ssize(tokens), dim = kv.shape().key_dim;
  KeyScores keys(kernels, kv.store(), kv.rotations());
  std::vector<float> scores;
  // Rounded up to a power of two: later calls reuse the freed memory instead of allocating from the system.
  scores.reserve(std::bit_ceil(static_cast<size_t>(std::min(kRowsAtOnce, rows) * group * kv.tokens())));
  for (int64_t first = 0; first < rows; first += kRowsAtOnce) {
    const int64_t count = std::min(kRowsAtOnce, rows - first);
    const int64_t end = tokens[first + count - 1] + 1;  // of the tokens visible to the last row
    scores.assign(count * group * end, -std::numeric_limits<float>::infinity());
    keys.of_entries(table, 0, table.size(), {0, end}, queries.data() + first * group * dim,
                    static_cast<int>(count) * group, scores.data(), end);
    for (int64_t i = 0; i < count * group; ++i) {
      const int64_t visible = tokens[first + i / group] + 1;
      const std::span<float> row(scores.data() + i * end, visible);
      softmax_scores(kernels, row, scale);
      kernels.add(sums.data(), row.data(), visible);
    }
  }
}

void mean_tail_attention(const LayerTokens& layer, const QueryTails& tails, int64_t rows, std::span<float> means) {
  const QueryTail& tail = tails.layers[layer.layer];
  const int group = layer.group();
  const int64_t all = layer.kv.tokens(), count = std::min(rows, tail.rows());
  std::vector<int64_t> tokens(count);
  std::iota(tokens.begin(), tokens.end(), tail.end() - count);
  layer.work.pool.parallel_for(layer.kv.heads(), [&](size_t h, int) {
    const int head = static_cast<int>(h);
    const std::vector<float> queries = tail.of_heads(head * group, group);
    const int64_t skip = (tail.rows() - count) * std::ssize(queries) / std::max<int64_t>(1, tail.rows());
    const std::span<float> head_means = means.subspan(h * all, all);
    add_attention(layer.kv, head, layer.work.kernels, std::span(queries).subspan(skip), tokens, group,
                  tails.common.scale, head_means);
    layer.work.kernels.scale(head_means.data(), 1 / static_cast<float>(std::max<int64_t>(1, count * group)), all);
  });
}

void to_read_order(const CompactedTokens& compacted, std::span<float> scores) {
  if (compacted.original_indices.empty()) return;
  const std::vector<float> stored(scores.begin() + compacted.begin, scores.begin() + compacted.end());
  std::fill_n(scores.begin(), compacted.end(), -std::numeric_limits<float>::infinity());
  for (size_t i = 0; i < stored.size(); ++i) scores[compacted.original_indices[i]] = stored[i];
}

void to_stored_order(const CompactedTokens& compacted, std::span<char> keep) {
  for (int64_t i = std::ssize(compacted.original_indices); i-- > 0;)
    keep[compacted.begin + i] = keep[compacted.original_indices[i]];
}

}  // namespace fathom
