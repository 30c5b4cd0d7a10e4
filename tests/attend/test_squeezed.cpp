// Squeezed Attention: clusters of the keys of a text.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "reading.h"
#include "seed.h"
#include "token_sets.h"

namespace fathom {
namespace {

using test::all_below;
using test::Reading;
using test::ReadingShape;

TEST(Squeezed, KeepsTheAttentionOfTopicsWithATenthOfTheKeys) {
  ReadingShape shape;
  shape.heads = shape.kv_heads = 1;
  shape.dim = 32;
  shape.rotary_dim = 0;
  shape.tokens = 2300;
  double held = 0, possible = 0, random = 0;
  for (uint32_t seed = 1; seed <= 3; ++seed) {
    shape.seed = seed;
    Reading reading(shape, "squeezed:pruned=0.9,min_context=1024,iterations=20");
    for (int64_t t = 64; t < shape.tokens; ++t)  // 64 topics; each query is near one
      for (int d = 0; d < 32; ++d) {
        reading.key(t, 0)[d] = reading.key(t % 64, 0)[d] + 0.3f * reading.key(t, 0)[d];
        reading.query(t, 0)[d] = 1.5f * reading.key(t % 61, 0)[d] + 0.5f * reading.query(t, 0)[d];
      }
    reading.read(2148);
    EXPECT_EQ(reading.attended(0), all_below(2148));
    for (int64_t step = 0; step < 8; ++step) {
      reading.read(1);
      std::vector<double> mass = reading.scores(2148 + step, 0, 0, 2048);
      Reading::softmax(mass);
      const std::vector<int64_t> attended = reading.attended(0);
      int64_t keys = 0;
      for (const int64_t t : attended) {
        if (t < 2048) held += mass[t], ++keys;
      }
      EXPECT_EQ(std::ranges::lower_bound(attended, 2048) - attended.begin(), keys);
      EXPECT_EQ(attended.back(), 2148 + step);
      EXPECT_EQ(std::ssize(attended) - keys, 2149 + step - 2048) << "not all of the newest tokens";
      random += static_cast<double>(keys) / 2048;
      std::ranges::sort(mass, std::greater());
      possible += std::accumulate(mass.begin(), mass.begin() + keys, 0.0);
    }
  }
  EXPECT_LT(random / 24, 0.2);
  EXPECT_GT(held, 0.9 * possible);
  EXPECT_GT(held, 3 * random);
}

/// Two layers that are read one after the other, as in a model. The keys of each are around 64 topics, in different
/// orders.
struct TwoLayers {
  static constexpr int kDim = 32;
  static constexpr int64_t kPrompt = 2148;

  TwoLayers()
      : sequence(test::identical_layers(layer(), 2)),
        selector(attend_methods().make("squeezed:pruned=0.9,min_context=1024,iterations=20")) {
    selector->attach(AttendContext::uniform(2, AttendLayer{1, 1, {PageFormat::kF32, kDim, kDim}}));
    sequence.set_state(Sequence::StateOf::kSelector, selector->new_state());
    std::mt19937 random(test::seed(5));
    std::normal_distribution<float> normal;
    std::vector<float> topics(64 * kDim);
    for (float& x : topics) x = normal(random);
    for (int l = 0; l < 2; ++l) {
      for (int64_t t = 0; t < kPrompt + 1; ++t) {
        const int64_t topic = l == 0 ? t % 64 : t / 7 % 64, query_topic = t % 61;
        for (int d = 0; d < kDim; ++d) {
          keys[l].push_back(topics[topic * kDim + d] + 0.3f * normal(random));
          queries[l].push_back(1.5f * topics[query_topic * kDim + d] + 0.5f * normal(random));
        }
      }
    }
  }
  static PagedKvConfig layer() {
    static const Rotary none({}, 4096);
    PagedKvConfig config;
    config.store = std::make_shared<PageStore>(PageShape{PageFormat::kF32, kDim, kDim});
    config.rotations = std::make_shared<PositionRotations>(none);
    return config;
  }

  /// Reads tokens and returns the selection of the last one in each layer.
  std::array<Selection, 2> read(int64_t rows) {
    const int64_t first = sequence.tokens();
    std::vector<int64_t> positions(rows);
    std::iota(positions.begin(), positions.end(), first);
    sequence.open(positions);
    std::array<Selection, 2> selections;
    for (int l = 0; l < 2; ++l) {
      sequence.kv(l).write(kernels(), 0, rows, &keys[l][first * kDim], kDim, &keys[l][first * kDim], kDim);
      LayerQueries layer;
      layer.sequence = &sequence;
      layer.kv = &sequence.kv(l);
      layer.layer = l;
      layer.heads = 1;
      layer.first = first;
      layer.rows = rows;
      layer.positions = positions.data();
      layer.queries = &queries[l][first * kDim];
      layer.stride = kDim;
      layer.scale = kScale;
      layer.kernels = &kernels();
      layer.state = sequence.state(Sequence::StateOf::kSelector);
      selector->plan(layer, pool);
      QueryBlock block;
      block.layer = l;
      block.first = first + rows - 1;
      block.rows = 1;
      block.kv = &sequence.kv(l);
      block.kernels = &kernels();
      block.state = layer.state;
      selector->select(sequence.kv(l).table(0), block, selections[l]);
    }
    sequence.commit();
    return selections;
  }

  static constexpr float kScale = 0.17f;
  Sequence sequence;
  std::unique_ptr<Selector> selector;
  ThreadPool pool{1};
  std::vector<float> keys[2], queries[2];
};

TEST(Squeezed, EachLayerHasClustersOfItsOwnKeys) {
  TwoLayers test;
  test.read(TwoLayers::kPrompt);
  const std::array<Selection, 2> selections = test.read(1);  // the first layer makes the clusters of both
  for (int l = 0; l < 2; ++l) {
    std::vector<double> mass;
    const float* query = &test.queries[l][TwoLayers::kPrompt * TwoLayers::kDim];
    for (int64_t t = 0; t < 2048; ++t)
      mass.push_back(TwoLayers::kScale *
                     std::inner_product(query, query + TwoLayers::kDim, &test.keys[l][t * TwoLayers::kDim], 0.0));
    Reading::softmax(mass);
    double held = 0;
    int64_t attended = 0;
    for (const SelectedPage& page : selections[l].pages) {
      for (int t = 0; t < kPageTokens; ++t) {
        const int64_t token = test.sequence.kv(l).table(0)[page.entry].first + t;
        if (token < 2048 && page.mask >> t & 1) held += mass[token], ++attended;
      }
    }
    std::ranges::sort(mass, std::greater());
    EXPECT_LT(attended, 2048 / 3) << "layer " << l;
    EXPECT_GT(held, 0.9 * std::accumulate(mass.begin(), mass.begin() + attended, 0.0)) << "layer " << l;
  }
}

TEST(Squeezed, LongTextsGetClustersAndRewindsRemoveThem) {
  Reading reading({}, "squeezed:pruned=0.8,min_context=500,iterations=3");
  reading.read(400);
  reading.read(1);
  EXPECT_EQ(reading.attended(0).size(), 401u);
  reading.read(200);
  EXPECT_EQ(reading.attended(0).size(), 601u) << "the text before this pass is too short";
  reading.read(1);
  const auto count = std::ssize(reading.attended(0)) + std::ssize(reading.attended(1));
  EXPECT_LT(count, 2 * 0.8 * 602);
  EXPECT_GT(count, 2 * 102);
  reading.remove_newest(2);
  reading.remove_newest(110);
  reading.read(1);
  EXPECT_EQ(reading.attended(0).size(), 491u);
}

TEST(Squeezed, AStateCreatedLateUsesTheQueriesOfTheCurrentPass) {
  Reading reading({}, "squeezed:pruned=0.8,min_context=500,iterations=3");
  reading.read(1500);
  reading.sequence.set_state(Sequence::StateOf::kSelector, reading.selector->new_state());
  reading.read(7);
  EXPECT_LT(reading.attended(0).size() + reading.attended(1).size(), 2 * 0.45 * 1500);
  EXPECT_TRUE(std::ranges::binary_search(reading.attended(0), 1450));
}

}  // namespace
}  // namespace fathom
