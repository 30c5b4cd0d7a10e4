#include "attend/attention_mass.h"

#include <gtest/gtest.h>

#include "scene.h"

namespace fathom {
namespace {

using test::Scene;
using test::SceneShape;

std::vector<SceneShape> mass_shapes() {
  return {{.heads = 8, .kv_heads = 2, .tokens = 65, .rows = 1},
          {.heads = 4, .kv_heads = 2, .tokens = 2600, .rows = 1, .gaps = 0.01, .masked = 0.1},
          {.heads = 4, .kv_heads = 2, .tokens = 300, .rows = 150, .gaps = 0.03, .masked = 0.2, .position = 777},
          {.heads = 2, .kv_heads = 2, .rotary_dim = 0, .tokens = 200, .rows = 200},
          {.heads = 4, .kv_heads = 2, .tokens = 300, .rows = 150, .window = 45}};
}

/// Returns [value_dim]: the outputs of the rows from `first` on, summed over rows and the heads that share a
/// key/value head.
std::vector<double> summed_out(const Scene& scene, const test::Attended& attended, int kv_head, int64_t first) {
  const SceneShape& s = scene.shape;
  std::vector<double> sum(s.value_dim);
  for (int64_t r = first; r < s.rows; ++r) {
    for (int h = kv_head * scene.group(); h < (kv_head + 1) * scene.group(); ++h) {
      for (int d = 0; d < s.value_dim; ++d) sum[d] += attended.out[(r * s.heads + h) * s.value_dim + d];
    }
  }
  return sum;
}

TEST(AttentionMass, EqualsTheWeightsOfTheValues) {
  for (const SceneShape& shape : mass_shapes()) {
    for (const std::string spec : {"dense", "window:sink=4,window=50", "lm-infinite:sink=10,window=40"}) {
      SCOPED_TRACE(testing::Message() << spec << " " << shape.tokens << " tokens");
      const Scene scene(shape);
      const auto selector = attend_methods().make(spec);
      std::vector<std::vector<double>> masses;
      for (const int threads : {1, 2}) {
        ThreadPool pool(threads);
        const int64_t first = shape.rows / 3;  // earlier rows are not counted
        AttentionMass mass({1}, shape.kv_heads, scene.first_row() + first);
        const test::Attended attended = attend(scene, *selector, pool, mass);
        EXPECT_EQ(mass.queries(0), (shape.rows - first) * shape.heads);
        for (int head = 0; head < shape.kv_heads; ++head) {
          masses.push_back(mass.mass(0, head, shape.tokens));
          const std::vector<char> visible = mass.visible_tokens(0, head, shape.tokens);
          std::vector<double> sum(shape.value_dim);
          double total = 0;
          for (int64_t t = 0; t < shape.tokens; ++t) {
            const double share = masses.back()[t];
            total += share;
            ASSERT_TRUE(visible[t] || share == 0);
            ASSERT_FALSE(visible[t] && scene.is_masked(t, head));
            ASSERT_FALSE(visible[t] && shape.window > 0 && t <= scene.first_row() + first - shape.window);
            for (int d = 0; d < shape.value_dim; ++d)
              sum[d] += share * scene.values[(t * shape.kv_heads + head) * shape.value_dim + d];
          }
          EXPECT_NEAR(total, static_cast<double>((shape.rows - first) * scene.group()), 1e-3 * total);
          const std::vector<double> expected = summed_out(scene, attended, head, first);
          for (int d = 0; d < shape.value_dim; ++d) ASSERT_NEAR(sum[d], expected[d], 2e-3 * shape.rows) << d;
        }
      }
      for (int head = 0; head < shape.kv_heads; ++head)
        EXPECT_EQ(masses[head], masses[shape.kv_heads + head]) << "results of one and two threads differ";
    }
  }
}

TEST(AttentionMass, UnobservedLayersAreNotCounted) {
  const Scene scene({.tokens = 100, .rows = 3});
  ThreadPool pool(1);
  AttentionMass mass({0}, scene.shape.kv_heads, 0);
  attend(scene, *attend_methods().make("dense"), pool, mass);
  EXPECT_EQ(mass.queries(0), 0);
  EXPECT_EQ(mass.mass(0, 0, 100), std::vector<double>(100));
}

}  // namespace
}  // namespace fathom
