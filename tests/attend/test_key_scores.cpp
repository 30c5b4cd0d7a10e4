#include "attend/key_scores.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "attend/key_clusters.h"
#include "attend/query_tail.h"
#include "reading.h"
#include "seed.h"

namespace fathom {
namespace {

using test::Reading;
using test::ReadingShape;

constexpr float kMasked = -std::numeric_limits<float>::infinity();

TEST(KeyScores, SoftVoteSumsProbabilitiesAndNotScores) {
  std::vector<float> heads = {30, 10, 0,    9, 0, 0,   0, .2f, 2,    .1f, .1f, 0,
                              0,  0,  2.2f, 0, 0, .1f, 0, .3f, 1.9f, 0,   .2f, 0};
  std::vector<float> sums(6);
  for (size_t i = 0; i < heads.size(); ++i) sums[i % 6] += heads[i];
  EXPECT_EQ(top_scores(sums, 2), (std::vector<int64_t>{0, 1}));
  ThreadPool pool(2);
  std::vector<float> raised = heads;
  for (int i = 0; i < 6; ++i) raised[i] += 5;  // one head's scores, all by the same amount
  const std::vector<float> votes = soft_vote(kernels(), heads, 4, 1, pool);
  EXPECT_EQ(top_scores(votes, 1), (std::vector<int64_t>{2}));
  EXPECT_EQ(top_scores(votes, 2), (std::vector<int64_t>{0, 2}));
  const std::vector<float> again = soft_vote(kernels(), raised, 4, 1, pool);
  for (int i = 0; i < 6; ++i) EXPECT_NEAR(again[i], votes[i], 1e-6);
}

TEST(KeyScores, TopScoresAreTheHighestAndAmongEqualOnesTheLast) {
  EXPECT_EQ(top_scores(std::vector<float>{1, 3, 2, 3, 3, 0}, 2), (std::vector<int64_t>{3, 4}));
  EXPECT_EQ(top_scores(std::vector<float>{1, 3, 2, 3, 3, 0}, 4), (std::vector<int64_t>{1, 2, 3, 4}));
  EXPECT_EQ(top_scores(std::vector<float>{1, kMasked, NAN, 0}, 9), (std::vector<int64_t>{0, 3}));
  EXPECT_EQ(top_scores(std::vector<float>{1, kMasked, 2, 0}, 1), (std::vector<int64_t>{2}));
  EXPECT_TRUE(top_scores(std::vector<float>{1, 2}, 0).empty());
  EXPECT_TRUE(top_scores({}, 3).empty());
}

TEST(KeyScores, TopScoresOfManyEqualThoseOfASort) {
  std::mt19937 random(test::seed(5));
  for (const int64_t n : {100, 513, 5000}) {
    for (const int values : {3, 1000000}) {  // many equal scores, or few
      std::vector<float> scores(n);
      for (float& score : scores) {
        score = static_cast<float>(random() % values) / static_cast<float>(values) - 0.3f;
        if (random() % 10 == 0) score = random() % 2 == 0 ? kMasked : NAN;
      }
      for (const int64_t k : {int64_t{1}, n / 4, n - 1, n, 2 * n}) {
        std::vector<int64_t> order;
        for (int64_t i = 0; i < n; ++i)
          if (scores[i] > kMasked) order.push_back(i);
        std::ranges::sort(
            order, [&](int64_t a, int64_t b) { return scores[a] != scores[b] ? scores[a] > scores[b] : a > b; });
        order.resize(std::min<int64_t>(k, std::ssize(order)));
        std::ranges::sort(order);
        EXPECT_EQ(top_scores(scores, k), order) << n << " scores of " << values << " values, the best " << k;
      }
    }
  }
}

TEST(KeyScores, PoolingTakesTheMaximumOrMeanOfNeighbours) {
  std::vector<float> most = {0, 0, 5, 0, 0, 1}, mean = {3, 0, 6, 0, 0, 3};
  max_pool(most, 3);
  mean_pool(mean, 3);
  EXPECT_EQ(most, (std::vector<float>{0, 5, 5, 5, 1, 1}));
  EXPECT_EQ(mean, (std::vector<float>{1, 3, 2, 2, 1, 1}));
}

TEST(KeyScores, LayerScoresAreProductsAtOriginalPositions) {
  Reading reading({}, "dense");
  reading.read(777);
  reading.sequence.kv(0).mask(1, 100, 130);
  LayerQueries layer;
  layer.sequence = &reading.sequence;
  layer.kv = &reading.sequence.kv(0);
  layer.heads = 4;
  layer.first = 776;
  layer.rows = 1;
  const int64_t position = 776;
  layer.positions = &position;
  layer.queries = reading.query(776, 0);
  layer.kernels = &kernels();
  std::vector<float> rotated(4 * 16), spare(16), scores;
  for (int h = 0; h < 4; ++h) rotate_query(layer, 0, h, spare.data(), rotated.data() + h * 16);
  ThreadPool pool(3);
  score_layer(layer, {50, 700}, rotated.data(), 2, pool, scores);
  ASSERT_EQ(scores.size(), 4u * 650);
  for (int h = 0; h < 4; ++h) {
    const std::vector<double> expected = reading.scores(776, h, 50, 700);
    for (int64_t t = 0; t < 650; ++t) {
      if (h >= 2 && t >= 50 && t < 80) {
        EXPECT_EQ(scores[h * 650 + t], kMasked);
      } else {
        EXPECT_NEAR(scores[h * 650 + t] * reading.scale(), expected[t], 1e-4);
      }
    }
  }
}

TEST(KeyScores, KeyTableScoresAreProductsWithItsKeys) {
  std::mt19937 random(test::seed(3));
  std::normal_distribution<float> normal;
  std::vector<float> keys(150 * 12), queries(3 * 12), scores(3 * 200);
  for (float& x : keys) x = normal(random);
  for (float& x : queries) x = normal(random);
  for (const PageFormat format : {PageFormat::kF32, PageFormat::kBF16}) {
    KeyTable table(format, 12);
    for (int i = 0; i < 150; ++i) table.add(keys.data() + i * 12);
    EXPECT_EQ(table.size(), 150);
    table.score(kernels(), queries.data(), 3, scores.data(), 200);
    for (int q = 0; q < 3; ++q) {
      for (int i = 0; i < 150; ++i) {
        double expected = 0;
        for (int d = 0; d < 12; ++d) expected += queries[q * 12 + d] * keys[i * 12 + d];
        EXPECT_NEAR(scores[q * 200 + i], expected, format == PageFormat::kF32 ? 1e-5 : 0.05);
      }
    }
  }
}

TEST(QueryTail, HoldsTheNewestQueriesForAnyLengthOfPasses) {
  Reading reading({}, "dense");
  reading.read(400);
  QueryTail whole, parts;
  const auto add = [&](QueryTail& tail, int64_t first, int64_t rows) {
    std::vector<int64_t> positions(rows);
    std::iota(positions.begin(), positions.end(), first);
    LayerQueries layer;
    layer.sequence = &reading.sequence;
    layer.kv = &reading.sequence.kv(0);
    layer.heads = 4;
    layer.first = first;
    layer.rows = rows;
    layer.positions = positions.data();
    layer.queries = reading.query(first, 0);
    layer.stride = 4 * 16;
    layer.kernels = &kernels();
    tail.add(layer, 50);
  };
  add(whole, 0, 300);
  for (const auto& [first, rows] : {std::pair{0, 120}, {120, 1}, {121, 170}, {291, 9}}) add(parts, first, rows);
  EXPECT_EQ(whole.rows(), 50);
  EXPECT_EQ(whole.begin(), 250);
  EXPECT_EQ(whole.of_heads(1, 3), parts.of_heads(1, 3));
  parts.rewind(280);
  EXPECT_EQ(parts.rows(), 30);
  EXPECT_EQ(parts.end(), 280);
  add(parts, 280, 20);
  EXPECT_EQ(whole.of_heads(0, 4), parts.of_heads(0, 4));
  parts.rewind(100);
  EXPECT_EQ(parts.rows(), 0);
  add(parts, 100, 5);
  EXPECT_EQ(parts.begin(), 100);
}

/// Returns [n, dim]: vectors around 64 directions.
std::vector<float> topics(int64_t n, int dim, uint32_t seed) {
  std::mt19937 random(test::seed(seed));
  std::normal_distribution<float> normal;
  std::vector<float> centres(64 * dim), vectors(n * dim);
  for (float& x : centres) x = normal(random);
  for (int64_t i = 0; i < n; ++i)
    for (int d = 0; d < dim; ++d) vectors[i * dim + d] = centres[i % 64 * dim + d] + 0.3f * normal(random);
  return vectors;
}

TEST(KeyClusters, ClustersMatchTheTopicsOfVectors) {
  const std::vector<float> vectors = topics(2048, 32, 5);
  const std::vector<int32_t> labels = cluster_directions(kernels(), vectors, 32, 102, 20);
  ASSERT_EQ(labels.size(), 2048u);
  int64_t mixed = 0;
  std::vector<int64_t> topic_of(102, -1);
  for (int64_t i = 0; i < 2048; ++i) {
    ASSERT_GE(labels[i], 0);
    ASSERT_LT(labels[i], 102);
    if (topic_of[labels[i]] < 0) topic_of[labels[i]] = i % 64;
    mixed += topic_of[labels[i]] != i % 64;
  }
  EXPECT_LT(mixed, 2048 / 20);
  EXPECT_EQ(labels, cluster_directions(kernels(), vectors, 32, 102, 20)) << "not deterministic";
}

TEST(KeyClusters, HoldEveryVisibleKeyOnceAndTheirSharesSumToOne) {
  Reading reading({}, "dense");
  reading.read(900);
  reading.sequence.kv(0).mask(0, 64, 100);
  const KeyClusters clusters = make_key_clusters(kernels(), reading.sequence.kv(0), 0, 850, 0.05, 10);
  std::vector<int64_t> tokens = clusters.tokens, expected;
  std::ranges::sort(tokens);
  for (int64_t t = 0; t < 850; ++t)
    if (t < 64 || t >= 100) expected.push_back(t);  // entry · 64 + offset is the token here
  EXPECT_EQ(tokens, expected);
  const std::vector<float> queries(reading.query(5, 0), reading.query(5, 0) + 2 * 16);
  const std::vector<float> shares = cluster_shares(kernels(), clusters, std::span(queries).first(16), 1, 1, 0.25f);
  double total = 0;
  for (int64_t c = 0; c < clusters.size(); ++c) total += shares[c] * static_cast<double>(clusters.members(c));
  EXPECT_NEAR(total, 1, 1e-5);
}

TEST(KeyClusters, SharesOfSingleKeysEqualAttentionProbabilities) {
  ReadingShape shape;
  shape.tokens = 300;
  Reading reading(shape, "dense");
  reading.read(300);
  const KeyClusters clusters = make_key_clusters(kernels(), reading.sequence.kv(0), 0, 200, 1, 50);
  std::vector<float> query(reading.query(299, 0), reading.query(299, 0) + 16);
  std::vector<float> spare(16);
  const PositionRotations::View rotation = reading.rotations->at(299, spare.data());
  kernels().rotate_pairs(query.data(), rotation.cos, rotation.sin, 8);
  const std::vector<float> shares = cluster_shares(kernels(), clusters, query, 1, 1, reading.scale());
  std::vector<double> expected = reading.scores(299, 0, 0, 200);
  Reading::softmax(expected);
  int64_t single = 0;
  for (int64_t c = 0; c < clusters.size(); ++c) {
    if (clusters.members(c) > 1) continue;
    ++single;
    EXPECT_NEAR(shares[c], expected[clusters.tokens[clusters.begin[c]]], 2e-3);
  }
  EXPECT_GT(single, 150);
}

}  // namespace
}  // namespace fathom
