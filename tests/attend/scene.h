#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "attend/attention.h"
#include "attend/forms/landmark_form.h"
#include "attend/methods.h"
#include "memory/identical_layers.h"
#include "seed.h"

namespace fathom::test {

/// The size and properties of a scene. The newest `rows` tokens are the queries.
struct SceneShape {
  int heads = 4, kv_heads = 2;
  int key_dim = 16, value_dim = 16, rotary_dim = 16;
  int64_t tokens = 200, rows = 5;
  double gaps = 0;       // share of tokens whose position does not follow the previous one
  double masked = 0;     // share of masked tokens, drawn for each page table separately
  int64_t position = 0;  // if above 0, the whole sequence is moved to this position after reading
  int64_t window = 0;    // the model's sliding window; 0: none
  Landmarks landmarks{};
  uint32_t seed = 1;
};

/// A sequence in float32 pages, together with the arrays that it was made from.
class Scene {
 public:
  explicit Scene(const SceneShape& s)
      : shape(s),
        rotary(config(s), 4096),
        rotations(std::make_shared<PositionRotations>(rotary)),
        sequence(identical_layers(layer())) {
    std::mt19937 random(test::seed(s.seed));
    std::normal_distribution<float> normal;
    const auto fill = [&](std::vector<float>& numbers, int64_t n) {
      numbers.resize(n);
      for (float& v : numbers) v = normal(random);
    };
    fill(keys, s.tokens * s.kv_heads * s.key_dim);
    fill(values, s.tokens * s.kv_heads * s.value_dim);
    fill(queries, s.rows * s.heads * s.key_dim);
    make_positions(random);
    read(random);
    make_masked(random);
    if (s.position > 0) {
      sequence.move_to(s.position);
      const int64_t shift = s.position - positions[0];
      for (int64_t& position : positions) position += shift;
    }
    rotations->reserve(sequence.end_position());
  }

  /// Reads all tokens again with the current keys and values.
  void read_again() {
    sequence.truncate(0);
    sequence.open(positions);
    write(0, shape.tokens);
    sequence.commit();
  }

  /// Returns the context that a selector is attached to.
  AttendContext context(int layers = 1) const {
    AttendContext context = AttendContext::uniform(
        layers, AttendLayer{shape.heads, shape.kv_heads, {PageFormat::kF32, shape.key_dim, shape.value_dim}});
    context.landmarks = shape.landmarks;
    return context;
  }
  int group() const { return shape.heads / shape.kv_heads; }
  int64_t first_row() const { return shape.tokens - shape.rows; }  // sequence index of row 0
  bool is_masked(int64_t token, int kv_head) const { return masked[token * shape.kv_heads + kv_head]; }
  float scale() const { return 1.3f / std::sqrt(static_cast<float>(shape.key_dim)); }

  SceneShape shape;
  Rotary rotary;
  std::shared_ptr<PositionRotations> rotations;
  Sequence sequence;
  std::vector<float> keys, values;  // [tokens, kv_heads, dim]
  std::vector<float> queries;       // [rows, heads, key_dim]
  std::vector<int64_t> positions;   // [tokens]
  std::vector<char> masked;         // [tokens, kv_heads]

 private:
  static RotaryConfig config(const SceneShape& s) {
    RotaryConfig c;
    c.dims = s.rotary_dim;
    return c;
  }

  PagedKvConfig layer() const {
    PagedKvConfig config;
    config.store = std::make_shared<PageStore>(PageShape{PageFormat::kF32, shape.key_dim, shape.value_dim});
    config.heads = shape.kv_heads;
    config.rotations = rotations;
    config.window = shape.window;
    config.page_tokens = shape.landmarks.page_tokens();
    return config;
  }

  void make_positions(std::mt19937& random) {
    int64_t position = 0;
    for (int64_t t = 0; t < shape.tokens; ++t) {
      if (random() % 1000 < shape.gaps * 1000) position += random() % 100;
      positions.push_back(position++);
    }
  }

  /// Reads in chunks of random size, so that pages are opened and continued.
  void read(std::mt19937& random) {
    for (int64_t done = 0; done < shape.tokens;) {
      const int64_t count = std::min<int64_t>(1 + random() % 300, shape.tokens - done);
      sequence.open(std::span(positions).subspan(done, count));
      write(done, count);
      sequence.commit();
      done += count;
    }
  }

  void write(int64_t first, int64_t count) {
    for (int h = 0; h < shape.kv_heads; ++h) {
      const int64_t at = first * shape.kv_heads + h;
      sequence.kv(0).write(kernels(), h, count, keys.data() + at * shape.key_dim, shape.kv_heads * shape.key_dim,
                           values.data() + at * shape.value_dim, shape.kv_heads * shape.value_dim);
    }
  }

  void make_masked(std::mt19937& random) {
    masked.assign(shape.tokens * shape.kv_heads, 0);
    for (int64_t t = 0; t < shape.tokens; ++t) {
      for (int h = 0; h < shape.kv_heads; ++h) {
        if (random() % 1000 >= shape.masked * 1000) continue;
        const int64_t end = std::min<int64_t>(t + 1 + random() % 3, shape.tokens);
        sequence.kv(0).mask(h, t, end);
        for (int64_t i = t; i < end; ++i) masked[i * shape.kv_heads + h] = 1;
      }
    }
  }
};

/// Returns whether token `query` may attend to `token` (≤ query), regardless of masked tokens. Both are sequence
/// indices.
using Visibility = std::function<bool(int64_t query, int64_t token)>;

inline Visibility dense_visibility() {
  return [](int64_t, int64_t) { return true; };
}
inline Visibility window_visibility(int64_t sink, int64_t size) {
  return [=](int64_t query, int64_t token) { return token < sink || token > query - size; };
}

struct Attended {
  std::vector<float> out;  // [rows, heads, value_dim]
  std::vector<float> lse;  // [rows, heads]
  AttentionCount count;
};

/// Runs the engine's attention over several scenes at once.
inline std::vector<Attended> attend(std::span<const Scene* const> scenes, const Selector& selector,
                                    ThreadPool& pool, const Kernels& table = kernels(),
                                    AttentionWatcher* watcher = nullptr) {
  std::vector<Attended> results(scenes.size());
  std::vector<AttentionInput> inputs(scenes.size());
  std::vector<LandmarkForm> landmark_forms;
  for (const Scene* scene : scenes) landmark_forms.emplace_back(scene->shape.landmarks);
  for (size_t i = 0; i < scenes.size(); ++i) {
    const Scene& scene = *scenes[i];
    const SceneShape& s = scene.shape;
    Attended& result = results[i];
    result.out.assign(s.rows * s.heads * s.value_dim, std::numeric_limits<float>::quiet_NaN());
    result.lse.assign(s.rows * s.heads, std::numeric_limits<float>::quiet_NaN());
    AttentionInput& input = inputs[i];
    input.sequence = &scene.sequence;
    input.kv = &scene.sequence.kv(0);
    input.heads = s.heads;
    input.rows = s.rows;
    input.positions = scene.positions.data() + scene.first_row();
    input.queries = scene.queries.data();
    input.query_stride = static_cast<int64_t>(s.heads) * s.key_dim;
    input.scale = scene.scale();
    if (s.landmarks) input.form = &landmark_forms[i];
    input.selector = &selector;
    input.selector_state = scene.sequence.state(Sequence::StateOf::kSelector);
    input.watcher = watcher;
    input.out = result.out.data();
    input.lse = result.lse.data();
  }
  Attention attention(pool, table);
  attention.run(inputs);
  results[0].count = attention.count();  // of all scenes
  return results;
}
inline Attended attend(const Scene& scene, const Selector& selector, ThreadPool& pool,
                       const Kernels& table = kernels()) {
  const Scene* scenes[] = {&scene};
  return attend(scenes, selector, pool, table)[0];
}
/// The same, with a watcher.
inline Attended attend(const Scene& scene, const Selector& selector, ThreadPool& pool, AttentionWatcher& watcher) {
  const Scene* scenes[] = {&scene};
  return attend(scenes, selector, pool, kernels(), &watcher)[0];
}

/// Returns the position at which queries attend to a token's key.
using KeyPosition = std::function<int64_t(int64_t token)>;

/// The definition of attention in double: softmax over all visible tokens that are not masked, not later than the
/// query and inside the model's window.
class PlainAttention {
 public:
  PlainAttention(const Scene& scene, Visibility visible, KeyPosition key_position = nullptr)
      : scene_(scene), s_(scene.shape), visible_(std::move(visible)) {
    rotated_keys_.resize(scene.keys.size());
    for (int64_t t = 0; t < s_.tokens; ++t) {
      const int64_t position = key_position ? key_position(t) : scene.positions[t];
      for (int h = 0; h < s_.kv_heads; ++h) {
        const int64_t at = (t * s_.kv_heads + h) * s_.key_dim;
        rotate(scene.keys.data() + at, position, rotated_keys_.data() + at);
      }
    }
    result_.out.resize(s_.rows * s_.heads * s_.value_dim);
    result_.lse.resize(s_.rows * s_.heads);
    for (int64_t r = 0; r < s_.rows; ++r) {
      for (int h = 0; h < s_.heads; ++h) row(r, h);
      const int64_t before = scene.first_row() + r + 1;
      result_.count.visible += s_.heads * (s_.window > 0 ? std::min(s_.window, before) : before);
    }
  }

  const Attended& result() const { return result_; }

 private:
  void rotate(const float* x, int64_t position, double* out) const {
    for (int i = 0; i < s_.key_dim / 2; ++i) {
      const double angle =
          i < scene_.rotary.pairs() ? static_cast<double>(position) * scene_.rotary.frequencies()[i] : 0;
      out[2 * i] = x[2 * i] * std::cos(angle) - x[2 * i + 1] * std::sin(angle);
      out[2 * i + 1] = x[2 * i] * std::sin(angle) + x[2 * i + 1] * std::cos(angle);
    }
  }

  void row(int64_t r, int head) {
    const int64_t index = scene_.first_row() + r;
    const int kv_head = head / scene_.group();
    std::vector<double> query(s_.key_dim), out(s_.value_dim, 0.0);
    rotate(scene_.queries.data() + (r * s_.heads + head) * s_.key_dim, scene_.positions[index], query.data());
    std::vector<int64_t> attended;
    std::vector<double> scores;
    for (int64_t t = 0; t <= index; ++t) {
      if (scene_.is_masked(t, kv_head) || !visible_(index, t)) continue;
      if (s_.window > 0 && t <= index - s_.window) continue;
      const double* key = rotated_keys_.data() + (t * s_.kv_heads + kv_head) * s_.key_dim;
      double score = 0;
      for (int d = 0; d < s_.key_dim; ++d) score += query[d] * key[d];
      attended.push_back(t);
      scores.push_back(score * scene_.scale());
    }
    const double largest = attended.empty() ? 0 : *std::max_element(scores.begin(), scores.end());
    double total = 0;
    for (size_t i = 0; i < attended.size(); ++i) {
      const double weight = std::exp(scores[i] - largest);
      const float* value = scene_.values.data() + (attended[i] * s_.kv_heads + kv_head) * s_.value_dim;
      total += weight;
      for (int d = 0; d < s_.value_dim; ++d) out[d] += weight * value[d];
    }
    for (int d = 0; d < s_.value_dim; ++d) {
      result_.out[(r * s_.heads + head) * s_.value_dim + d] =
          attended.empty() ? 0 : static_cast<float>(out[d] / total);
    }
    result_.lse[r * s_.heads + head] = static_cast<float>(largest + std::log(total));
    result_.count.attended += static_cast<int64_t>(attended.size());
  }

  const Scene& scene_;
  const SceneShape& s_;
  Visibility visible_;
  std::vector<double> rotated_keys_;  // [tokens, kv_heads, key_dim] keys rotated by their positions
  Attended result_;
};

inline void expect_equal(const Attended& found, const Attended& expected) {
  constexpr float kRounding = 2e-5f;  // rounding error of float32 sums over a few thousand tokens
  ASSERT_EQ(found.out.size(), expected.out.size());
  for (size_t i = 0; i < expected.lse.size(); ++i) {
    if (std::isinf(expected.lse[i])) {
      ASSERT_EQ(found.lse[i], expected.lse[i]) << "row·head " << i;
    } else {
      ASSERT_NEAR(found.lse[i], expected.lse[i], kRounding * (1 + std::fabs(expected.lse[i]))) << "row·head " << i;
    }
  }
  for (size_t i = 0; i < expected.out.size(); ++i) {
    ASSERT_NEAR(found.out[i], expected.out[i], kRounding * (1 + std::fabs(expected.out[i]))) << "element " << i;
  }
  EXPECT_EQ(found.count.attended, expected.count.attended);
  EXPECT_EQ(found.count.visible, expected.count.visible);
}

}  // namespace fathom::test
