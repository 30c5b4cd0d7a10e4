// Tokens that queries to come are expected to attend to stay: queries are taken to be normally distributed, as
// those so far.
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

constexpr int64_t kSkipped = 4;  // first tokens, whose queries are unlike all others

/// Sums over the queries of a layer, not rotated.
struct LayerSums {
  double count = 0;
  std::vector<float> queries;   // [heads, key_dim]
  std::vector<float> products;  // [heads, key_dim, key_dim]
  void rewind(int64_t) {}       // what was counted stays
};
struct Scale {
  float of_scores = 0;
};
using State = LayerStates<LayerSums, Scale>;

/// Mean and covariance of one head's queries.
struct Normal {
  std::vector<float> mean, covariance;
};

class Expected final : public LayeredScorer<LayerSums, Scale> {
 public:
  Expected(int64_t future, int64_t sink) : future_(future), sink_(sink) {}

  void listen(const LayerQueries& queries, State& state, ThreadPool& pool) const override {
    state.common.of_scores = queries.scale;
    LayerSums& layer = state.layers.at(queries.layer);
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

  void score(const LayerTokens& layer, const State& state, std::span<float> scores) const override {
    const LayerSums& sums = state.layers.at(layer.layer);
    if (sums.count < 2) return;
    const std::vector<std::complex<float>> rotations = mean_rotations(layer);
    const int64_t tokens = layer.kv.tokens();
    layer.work.pool.parallel_for(layer.kv.heads(), [&](size_t h, int) {
      const int head = static_cast<int>(h), group = layer.group();
      const std::span<float> own = scores.subspan(h * tokens, tokens);
      std::vector<float> logits(group * tokens);
      for (int q = 0; q < group; ++q) {
        const std::span<float> of_head = std::span(logits).subspan(q * tokens, tokens);
        head_logits(layer, head, normal_of(sums, head * group + q), rotations, state.common.of_scores, of_head);
        mask_scores(layer.table(head), 0, of_head);
        hide_first(layer.table(head), sink_, of_head);
        softmax_scores(layer.work.kernels, of_head, 1);
        layer.work.kernels.add(own.data(), of_head.data(), tokens);
      }
      layer.work.kernels.scale(own.data(), 1 / static_cast<float>(group), tokens);
      scale_by_values(layer, head, own);
    });
  }

 private:
  static Normal normal_of(const LayerSums& sums, int head) {
    const size_t dim = static_cast<size_t>(std::ssize(sums.products) / std::ssize(sums.queries));
    Normal normal;
    normal.mean.assign(sums.queries.begin() + head * dim, sums.queries.begin() + (head + 1) * dim);
    for (float& x : normal.mean) x = static_cast<float>(x / sums.count);
    normal.covariance.assign(sums.products.begin() + head * dim * dim,
                             sums.products.begin() + (head + 1) * dim * dim);
    for (size_t i = 0; i < dim * dim; ++i)
      normal.covariance[i] =
          static_cast<float>(normal.covariance[i] / sums.count) - normal.mean[i / dim] * normal.mean[i % dim];
    return normal;
  }

  /// The mean rotation over the positions to come, by pairs, as a complex number: it also shortens.
  std::vector<std::complex<float>> mean_rotations(const LayerTokens& layer) const {
    const PositionRotations& rotations = layer.kv.rotations();
    const int pairs = rotations.pairs();
    std::vector<float> spare(2 * static_cast<size_t>(pairs));
    std::vector<std::complex<float>> means;
    if (pairs == 0) return means;
    const PositionRotations::View first = rotations.at(layer.kv.next_position(), spare.data());
    const PositionRotations::View step = rotations.offset(1);
    for (int i = 0; i < pairs; ++i) {
      const std::complex<double> one(step.cos[i], step.sin[i]);
      std::complex<double> rotation(first.cos[i], first.sin[i]), sum = 0;
      for (int64_t n = 0; n < future_; ++n, rotation *= one) sum += rotation;
      means.emplace_back(sum / static_cast<double>(future_));
    }
    return means;
  }

  /// ln E exp(q·k) of all tokens of a table: μ·k + k·Σk/2 under the mean rotation.
  static void head_logits(const LayerTokens& layer, int head, const Normal& normal,
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
      product.b = normal.covariance.data();
      product.y = products.data();
      product.a_stride = product.b_stride = product.y_stride = dim;
      layer.work.kernels.multiply(product, scratch.data());
      for (int t = 0; t < entry.filled; ++t) {
        const float* key = keys.data() + t * dim;
        logits[entry.first + t] = scale * dot(key, normal.mean.data(), dim) +
                                  scale * scale / 2 * dot(key, products.data() + t * dim, dim);
      }
    }
  }

  /// q rotated by R and met with k is q met with k rotated back.
  static void inverse_rotate(const std::vector<std::complex<float>>& rotations, float* key) {
    for (size_t i = 0; i < rotations.size(); ++i) {
      const std::complex<float> rotated = std::complex(key[2 * i], key[2 * i + 1]) * std::conj(rotations[i]);
      key[2 * i] = rotated.real();
      key[2 * i + 1] = rotated.imag();
    }
  }

  /// What always stays takes no part, as published: how much it draws would weigh one query head against another.
  static void hide_first(const PageTable& table, int64_t count, std::span<float> logits) {
    for (const PageEntry& entry : table) {
      for (int t = 0; t < entry.filled && count > 0; ++t) {
        if (!(entry.mask >> t & 1)) continue;
        logits[entry.first + t] = -std::numeric_limits<float>::infinity();
        --count;
      }
      if (count == 0) return;
    }
  }

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
  parameters.push_back(
      {"future", Parameter::Type::kInt, "512", "positions to come whose rotations are averaged", 1, 1e6, {}});
  return {{.name = "expected",
           .summary = "keeps what queries to come are expected to attend to, times the norm of its value",
           .paper = "Expected Attention: KV Cache Compression by Estimating Attention from Future Queries "
                    "Distribution, 2025",
           .needs = "any model",
           .time = "O(key_dim²) per query head and token read, and the same per kept token and cut",
           .memory = concat(kKeptMemory, "; key_dim² numbers per query head"),
           .parameters = std::move(parameters),
           .capabilities = {.needs_host_pages = true, .works_on_recurrent = true}},
          [](const Values& values) {
            return make_keeping(values, {},
                                std::make_unique<Expected>(values.integer("future"), values.integer("sink")));
          }};
}

}  // namespace fathom
