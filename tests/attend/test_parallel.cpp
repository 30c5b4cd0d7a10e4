// Attention to contexts that were read alone (ParallelForm).
#include <gtest/gtest.h>

#include <cmath>

#include "scene.h"

namespace fathom {
namespace {

using test::Attended;
using test::PlainAttention;
using test::Scene;

/// Merges attention to the contexts, at temperature T, and to the other tokens, by the formula of the paper.
Attended merged(const Attended& contexts, const Attended& others, int dim, double temperature, double scale) {
  Attended result = others;
  for (size_t q = 0; q < result.lse.size(); ++q) {
    const double a = std::exp(scale * temperature * contexts.lse[q]), b = std::exp(double{others.lse[q]});
    for (int d = 0; d < dim; ++d) {
      const size_t at = q * dim + d;
      result.out[at] = static_cast<float>((a * contexts.out[at] + b * others.out[at]) / (a + b));
    }
    result.lse[q] = static_cast<float>(std::log(a + b));
  }
  return result;
}

TEST(ParallelContexts, HaveTheValuesOfTheHandbook) {
  ThreadPool pool(1);
  const auto dense = attend_methods().make("dense");
  struct Golden {
    float temperature, scale;
    double out;
  };
  for (const Golden& golden : {Golden{1, 1, 2.871589}, {0.9f, 0.9f, 3.087592}, {0.5f, 0.8f, 3.425119}}) {
    Scene scene(
        {.heads = 1, .kv_heads = 1, .key_dim = 16, .value_dim = 16, .rotary_dim = 0, .tokens = 5, .rows = 1});
    const double logits[] = {1, 2, 0, 0.5, 1.5};
    for (int token = 0; token < 5; ++token) {
      for (int d = 0; d < 16; ++d) {
        scene.keys[token * 16 + d] = d == 0 ? static_cast<float>(logits[token]) : 0;
        scene.values[token * 16 + d] = static_cast<float>(token + 1);
      }
    }
    scene.queries.assign(16, 0);
    scene.queries[0] = 1 / scene.scale();
    scene.read_again();
    scene.sequence.set_parallel({0, 3, golden.temperature, golden.scale});
    EXPECT_NEAR(test::attend(scene, *dense, pool).out[0], golden.out, 2e-6);
  }
}

TEST(ParallelContexts, EqualTheFormula) {
  ThreadPool pool(2);
  const auto dense = attend_methods().make("dense");
  uint32_t seed = 1;
  for (const int64_t tokens : {40, 130, 5000}) {  // 5,000: pages are attended in parts
    for (const int64_t rows : {1, 3, 30}) {
      for (const auto& [temperature, scale] : {std::pair{1.0f, 1.0f}, {0.9f, 0.9f}, {0.5f, 0.8f}, {1.2f, 1.1f}}) {
        SCOPED_TRACE(testing::Message() << tokens << " tokens, " << rows << " rows, T " << temperature);
        Scene scene({.tokens = tokens, .rows = rows, .masked = 0.1, .seed = seed++});
        const int64_t begin = 7, end = tokens - rows - 1;  // inside pages
        const auto in_contexts = [&](int64_t, int64_t token) { return token >= begin && token < end; };
        const auto in_others = [&](int64_t, int64_t token) { return token < begin || token >= end; };
        const Attended others = PlainAttention(scene, in_others).result();
        const std::vector<float> queries = scene.queries;
        for (float& value : scene.queries) value /= temperature;
        const Attended contexts = PlainAttention(scene, in_contexts).result();
        scene.queries = queries;
        const Attended expected = merged(contexts, others, scene.shape.value_dim, temperature, scale);
        scene.sequence.set_parallel({begin, end, temperature, scale});
        const Attended found = test::attend(scene, *dense, pool);
        for (size_t i = 0; i < expected.out.size(); ++i) ASSERT_NEAR(found.out[i], expected.out[i], 1e-4);
        for (size_t i = 0; i < expected.lse.size(); ++i) ASSERT_NEAR(found.lse[i], expected.lse[i], 1e-4);
      }
    }
  }
}

}  // namespace
}  // namespace fathom
