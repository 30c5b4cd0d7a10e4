// Keeps the tokens that future queries are expected to attend to. Future queries are assumed to have a normal
// distribution with the mean and covariance of the queries so far.
#include <algorithm>
#include <cmath>
#include <complex>
#include <limits>
#include <vector>

#include "attend/key_scores.h"
#include "attend/token_set.h"
#include "base/error.h"
#include "evict/methods.h"
#include "evict/stateful_scorer.h"
#include "evict/token_scoring.h"

namespace fathom {
namespace {

constexpr int64_t kSkipped = 4;  // number of first tokens, whose queries are excluded: they differ from all others

/// Sums over the unrotated queries of a layer.
struct QuerySums {
  double count = 0;             // queries
  std::vector<float> queries;   // [heads, key_dim]
  std::vector<float> products;  // [heads, key_dim, key_dim]
  void rewind(int64_t) {}       // the sums still include the queries of removed tokens
  void save(ByteWriter& out, const SequenceLayer& /*layer*/) const {
    out.add(count);
    if (count == 0) return;
    out.add_list(queries);
    out.add_list(products);
  }
  void load(ByteReader& in, const SequenceLayer& layer) {
    count = in.take<double>();
    if (count == 0) return;
    in.check(layer.query_width() > 0, "expected no sums of queries for a layer without attention");
    queries = in.take_list<float>(layer.query_width());
    products = in.take_list<float>(layer.query_width() * layer.key_dim());
  }
};
using ExpectedState = LayerStates<QuerySums, TailScale>;

/// Mean and covariance of one head's queries. mean: [key_dim]; covariance: [key_dim, key_dim].
struct QueryDistribution {
  std::vector<float> mean, covariance;
};

class Expected final : public LayeredScorer<QuerySums, TailScale> {
 public:
  Expected(int64_t future, int64_t sink) : future_(future), sink_(sink) {}

  void listen(const LayerQueries& queries, ExpectedState& state, ThreadPool& pool) const override {
    state.common.scale = queries.scale;
    QuerySums& layer = state.layers.at(queries.layer);
    const int64_t dim = queries.kv->shape().key_dim;
    const int64_t skipped = std::clamp<int64_t>(kSkipped - queries.first, 0, queries.rows);
    const int64_t rows = queries.rows - skipped;
    if (rows == 0) return;
    layer.count += static_cast<double>(rows);
    layer.queries.resize(queries.heads * dim);
    layer.products.resize(queries.heads * dim * dim);
    pool.parallel_for(queries.heads, [&](size_t head, int) {
      const float* first = queries.query(skipped, static_cast<int>(head));
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t d = 0; d < dim; ++d) layer.queries[head * dim + d] += first[r * queries.stride + d];
      FloatProduct product;
      product.rows = product.cols = dim;
      product.depth = rows;
      product.a = product.b = first;
      product.a_stride = product.b_stride = queries.stride;
      product.a_transposed = true;
      product.y = layer.products.data() + head * dim * dim;
      product.y_stride = dim;
      product.add = true;
      AlignedBuffer<float> scratch(kMultiplyScratch);
      queries.kernels->multiply(product, scratch.data());
    });
  }

  void score(const LayerTokens& layer, const ExpectedState& state, std::span<float> scores) const override {
    const QuerySums& sums = state.layers.at(layer.layer);
    if (sums.count < 2) return;
    const std::vector<std::complex<float>> rotations = mean_rotations(layer);
    const int64_t tokens = layer.kv.tokens();
    layer.work.pool.parallel_for(layer.kv.heads(), [&](size_t h, int) {
      const int head = static_cast<int>(h), group = layer.group();
      const std::span<float> head_scores = scores.subspan(h * tokens, tokens);
      std::vector<float> logits(group * tokens);
      for (int q = 0; q < group; ++q) {
        const std::span<float> query_logits = std::span(logits).subspan(q * tokens, tokens);
        head_logits(layer, head, distribution_of(sums, head * group + q), rotations, state.common.scale,
                    query_logits);
        mask_scores(layer.table(head), 0, query_logits);
        mask_first(layer.table(head), sink_, query_logits);
        softmax_scores(layer.work.kernels, query_logits, 1);
        layer.work.kernels.add(head_scores.data(), query_logits.data(), tokens);
      }
      layer.work.kernels.scale(head_scores.data(), 1 / static_cast<float>(group), tokens);
      scale_by_values(layer, head, head_scores);
    });
  }

 private:
  static QueryDistribution distribution_of(const QuerySums& sums, int head) {
    const size_t dim = static_cast<size_t>(std::ssize(sums.products) / std::ssize(sums.queries));
    QueryDistribution distribution;
    distribution.mean.assign(sums.queries.begin() + head * dim, sums.queries.begin() + (head + 1) * dim);
    for (float& x : distribution.mean) x = static_cast<float>(x / sums.count);
    distribution.covariance.assign(sums.products.begin() + head * dim * dim,
                                   sums.products.begin() + (head + 1) * dim * dim);
    for (size_t i = 0; i < dim * dim; ++i)
      distribution.covariance[i] = static_cast<float>(distribution.covariance[i] / sums.count) -
                                   distribution.mean[i / dim] * distribution.mean[i % dim];
    return distribution;
  }

  /// Returns the mean rotation over the next future_ positions, one complex number for each rotary pair. Its
  /// absolute value is below 1 where the rotations differ.
  std::vector<std::complex<float>> mean_rotations(const LayerTokens& layer) const {
    const PositionRotations& rotations = layer.kv.rotations();
    const int pairs = rotations.pairs();
    std::vector<float> scratch(2 * static_cast<size_t>(pairs));
    std::vector<std::complex<float>> means;
    if (pairs == 0) return means;
    const PositionRotations::View first = rotations.at(layer.kv.next_position(), scratch.data());
    const PositionRotations::View step = rotations.offset(1);
    for (int i = 0; i < pairs; ++i) {
      const std::complex<double> one(step.cos[i], step.sin[i]);
      std::complex<double> rotation(first.cos[i], first.sin[i]), sum = 0;
      for (int64_t n = 0; n < future_; ++n, rotation *= one) sum += rotation;
      means.emplace_back(sum / static_cast<double>(future_));
    }
    return means;
  }

  /// Computes ln E exp(scale·q·k) for the tokens of a page table, by sequence index: scale·μ·k + scale²·k·Σk/2,
  /// with k inverse-rotated by the mean rotation.
  static void head_logits(const LayerTokens& layer, int head, const QueryDistribution& distribution,
                          const std::vector<std::complex<float>>& rotations, float scale, std::span<float> logits) {
    const PageStore& store = layer.kv.store();
    const int dim = store.shape().key_dim;
    std::vector<float> keys, products(static_cast<size_t>(kPageTokens) * dim);
    AlignedBuffer<float> scratch(kMultiplyScratch);
    for (const PageEntry& entry : layer.table(head)) {
      if (entry.mask == 0) continue;
      read_rotated(layer.work.kernels, layer.kv, entry, keys);
      for (int t = 0; t < entry.filled; ++t) inverse_rotate(rotations, keys.data() + t * dim);
      FloatProduct product;
      product.rows = entry.filled;
      product.cols = product.depth = dim;
      product.a = keys.data();
      product.b = distribution.covariance.data();
      product.y = products.data();
      product.a_stride = product.b_stride = product.y_stride = dim;
      layer.work.kernels.multiply(product, scratch.data());
      for (int t = 0; t < entry.filled; ++t) {
        const float* key = keys.data() + t * dim;
        logits[entry.first + t] = scale * dot(key, distribution.mean.data(), dim) +
                                  scale * scale / 2 * dot(key, products.data() + t * dim, dim);
      }
    }
  }

  /// Inverse-rotates a key in place: (Rq)·k = q·(R⁻¹k).
  static void inverse_rotate(const std::vector<std::complex<float>>& rotations, float* key) {
    for (size_t i = 0; i < rotations.size(); ++i) {
      const std::complex<float> rotated = std::complex(key[2 * i], key[2 * i + 1]) * std::conj(rotations[i]);
      key[2 * i] = rotated.real();
      key[2 * i + 1] = rotated.imag();
    }
  }

  /// Excludes the first `count` visible tokens from the softmax, as in the paper. They are always kept, and their
  /// share of the attention would otherwise determine the weight of each query head.
  static void mask_first(const PageTable& table, int64_t count, std::span<float> logits) {
    for (const PageEntry& entry : table) {
      for (int t = 0; t < entry.filled && count > 0; ++t) {
        if (!(entry.mask >> t & 1)) continue;
        logits[entry.first + t] = -std::numeric_limits<float>::infinity();
        --count;
      }
      if (count == 0) return;
    }
  }

  /// Multiplies the scores by the norms of the values.
  static void scale_by_values(const LayerTokens& layer, int head, std::span<float> scores) {
    const PageStore& store = layer.kv.store();
    for (const PageEntry& entry : layer.table(head)) {
      for (int t = 0; entry.mask && t < entry.filled; ++t) {
        if (!(entry.mask >> t & 1)) continue;
        float squares = 0;
        for (int d = 0; d < store.shape().value_dim; ++d) {
          const float v = store.value(entry.page, t, d);
          squares += v * v;
        }
        scores[entry.first + t] *= std::sqrt(squares);
      }
    }
  }

  int64_t future_, sink_;
};

}  // namespace

EvictEntry expected_method() {
  std::vector<Parameter> parameters = keep_parameters({.window = 32});
  parameters.push_back({"future",
                        Parameter::Type::kInt,
                        "512",
                        "next positions over which the expected attention is averaged; more predicts further ahead",
                        1,
                        1e6,
                        {}});
  return {
      {.name = "expected",
       .summary =
           "keeps the tokens that future queries are expected to attend to, weighted by the norm of their value",
       .paper = "Expected Attention: KV Cache Compression by Estimating Attention from Future Queries "
                "Distribution, 2025",
       .needs = "any model",
       .time = "O(key_dim²) per query head and token read, and as much per kept token at each eviction",
       .memory = concat(kKeptMemory, "; key_dim² numbers per query head"),
       .parameters = std::move(parameters),
       .capabilities = {.needs_host_pages = true, .works_on_recurrent = true}},
      [](const Values& values) {
        return make_budget_evictor(values, {},
                                   std::make_unique<Expected>(values.integer("future"), values.integer("sink")));
      }};
}

}  // namespace fathom
