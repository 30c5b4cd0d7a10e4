#pragma once

#include <cmath>
#include <functional>
#include <numeric>
#include <random>
#include <vector>

#include "attend/methods.h"
#include "memory/identical_layers.h"
#include "seed.h"

namespace fathom::test {

inline constexpr int kValueDim = 2;

struct ReadingShape {
  int heads = 4, kv_heads = 2, dim = 16;
  int rotary_dim = 16;
  int64_t tokens = 2000;
  uint32_t seed = 1;
};

/// A sequence with one layer of random keys and queries, read pass by pass with a selector.
class Reading {
 public:
  Reading(const ReadingShape& s, const std::string& spec)
      : shape(s),
        rotary(
            [&] {
              RotaryConfig c;
              c.dims = s.rotary_dim;
              return c;
            }(),
            4096),
        rotations(std::make_shared<PositionRotations>(rotary)),
        sequence(identical_layers(layer())),
        selector(attend_methods().make(spec)),
        pool(std::make_unique<ThreadPool>(1)) {
    std::mt19937 random(test::seed(s.seed));
    std::normal_distribution<float> normal;
    keys.resize(s.tokens * s.kv_heads * s.dim);
    queries.resize(s.tokens * s.heads * s.dim);
    for (float& x : keys) x = normal(random);
    for (float& x : queries) x = normal(random);
    values.resize(s.tokens * s.kv_heads * kValueDim);
    for (float& x : values) x = normal(random);
    selector->attach(context());
    sequence.set_state(Sequence::StateOf::kSelector, selector->new_state());
    rotations->reserve(s.tokens + 1);
  }

  /// Returns the context that a selector is attached to.
  AttendContext context() const {
    return AttendContext::uniform(
        1, AttendLayer{shape.heads, shape.kv_heads, {PageFormat::kF32, shape.dim, kValueDim}});
  }

  float* key(int64_t token, int kv_head) { return keys.data() + (token * shape.kv_heads + kv_head) * shape.dim; }
  float* query(int64_t token, int head) { return queries.data() + (token * shape.heads + head) * shape.dim; }
  float* value(int64_t token, int kv_head) {
    return values.data() + (token * shape.kv_heads + kv_head) * kValueDim;
  }
  int group() const { return shape.heads / shape.kv_heads; }
  float scale() const { return 1 / std::sqrt(static_cast<float>(shape.dim)); }

  void use_threads(int threads) { pool = std::make_unique<ThreadPool>(threads); }

  /// Reads `rows` tokens as one pass. Sets `selections` to those of all its rows, one per key/value head.
  void read(int64_t rows) {
    const int64_t first = sequence.tokens();
    std::vector<int64_t> positions(rows);
    std::iota(positions.begin(), positions.end(), first);
    sequence.open(positions);
    for (int h = 0; h < shape.kv_heads; ++h) {
      sequence.kv(0).write(kernels(), h, rows, key(first, h), shape.kv_heads * shape.dim, value(first, h),
                           shape.kv_heads * kValueDim);
    }
    LayerQueries layer;
    layer.sequence = &sequence;
    layer.kv = &sequence.kv(0);
    layer.heads = shape.heads;
    layer.first = first;
    layer.rows = rows;
    layer.positions = positions.data();
    layer.queries = query(first, 0);
    layer.stride = shape.heads * shape.dim;
    layer.scale = scale();
    layer.kernels = &kernels();
    layer.state = sequence.state(Sequence::StateOf::kSelector);
    selector->plan(layer, *pool);
    if (listen) listen(layer);
    selections.assign(shape.kv_heads, {});
    for (int h = 0; h < shape.kv_heads; ++h) select(h, first, static_cast<int>(rows), positions.data());
    sequence.commit();
  }
  void remove_newest(int64_t n) { sequence.truncate(sequence.tokens() - n); }

  /// Returns the tokens that the last pass selected for one head, in order, its own rows included.
  std::vector<int64_t> attended(int kv_head) const {
    std::vector<int64_t> tokens;
    const PageTable& table = sequence.kv(0).table(kv_head);
    for (const SelectedPage& page : selections[kv_head].pages) {
      for (int t = 0; t < table[page.entry].filled; ++t)
        if (page.mask >> t & 1) tokens.push_back(table[page.entry].first + t);
    }
    return tokens;
  }

  /// Returns the scores of the query of a token with tokens [begin, end) at original positions, in double.
  std::vector<double> scores(int64_t token, int head, int64_t begin, int64_t end) {
    std::vector<double> all, q = rotated(query(token, head), token);
    for (int64_t t = begin; t < end; ++t) {
      const std::vector<double> k = rotated(key(t, head / group()), t);
      all.push_back(std::inner_product(q.begin(), q.end(), k.begin(), 0.0) * scale());
    }
    return all;
  }
  static void softmax(std::vector<double>& scores) {
    double sum = 0;
    for (double& s : scores) sum += s = std::exp(s);
    for (double& s : scores) s /= sum;
  }

  ReadingShape shape;
  Rotary rotary;
  std::shared_ptr<PositionRotations> rotations;
  Sequence sequence;
  std::unique_ptr<Selector> selector;
  std::unique_ptr<ThreadPool> pool;
  std::function<void(LayerQueries)> listen;  // called for each pass
  std::vector<float> keys, queries, values;  // [tokens, heads, dim]
  std::vector<Selection> selections;

  /// Returns x rotated by a position.
  std::vector<double> rotated(const float* x, int64_t position) const {
    std::vector<double> out(x, x + shape.dim);
    for (int i = 0; i < rotary.pairs(); ++i) {
      const double angle = static_cast<double>(position) * rotary.frequencies()[i];
      out[2 * i] = x[2 * i] * std::cos(angle) - x[2 * i + 1] * std::sin(angle);
      out[2 * i + 1] = x[2 * i] * std::sin(angle) + x[2 * i + 1] * std::cos(angle);
    }
    return out;
  }

 private:
  PagedKvConfig layer() const {
    PagedKvConfig config;
    config.store = std::make_shared<PageStore>(PageShape{PageFormat::kF32, shape.dim, kValueDim});
    config.heads = shape.kv_heads;
    config.rotations = rotations;
    return config;
  }

  void select(int head, int64_t first, int rows, const int64_t* positions) {
    std::vector<float> rotated(rows * group() * shape.dim);
    for (int i = 0; i < rows * group(); ++i) {
      const std::vector<double> q =
          this->rotated(query(first + i / group(), head * group() + i % group()), first + i / group());
      for (int d = 0; d < shape.dim; ++d) rotated[i * shape.dim + d] = static_cast<float>(q[d] * scale());
    }
    QueryBlock block;
    block.head = head;
    block.group = group();
    block.first = first;
    block.rows = rows;
    block.positions = positions;
    block.queries = rotated.data();
    block.kv = &sequence.kv(0);
    block.kernels = &kernels();
    block.state = sequence.state(Sequence::StateOf::kSelector);
    selector->select(sequence.kv(0).table(head), block, selections[head]);
  }
};

}  // namespace fathom::test
