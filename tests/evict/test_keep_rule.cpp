#include "evict/keep_rule.h"
#include "seed.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>

namespace fathom {
namespace {

constexpr float kMasked = -std::numeric_limits<float>::infinity();

/// Returns the kept tokens of one head.
std::vector<int64_t> kept(const std::vector<char>& keep, int heads, int head) {
  std::vector<int64_t> tokens;
  const int64_t n = std::ssize(keep) / heads;
  for (int64_t t = 0; t < n; ++t)
    if (keep[head * n + t]) tokens.push_back(t);
  return tokens;
}

using TokenIndices = std::vector<int64_t>;

TEST(Keep, KeepsTheBestOfEachHeadAndOfEqualScoresTheNewer) {
  const std::vector<float> scores = {5, 1, 4, 1, 3, 1, /**/ 1, 1, 1, 1, 1, 1};
  const std::vector<char> keep = keep_best(scores, 2, 3, {});
  EXPECT_EQ(kept(keep, 2, 0), (TokenIndices{0, 2, 4}));
  EXPECT_EQ(kept(keep, 2, 1), (TokenIndices{3, 4, 5}));
  EXPECT_EQ(kept(keep_best(scores, 2, 6, {}), 2, 0), (TokenIndices{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(kept(keep_best(scores, 2, 100, {}), 2, 1), (TokenIndices{0, 1, 2, 3, 4, 5}));
}

TEST(Keep, SinkAndWindowAreKeptAndCountTowardsTheBudget) {
  const std::vector<float> scores = {0, 9, 8, 7, 6, 0};
  EXPECT_EQ(kept(keep_best(scores, 1, 3, {.sink = 1, .window = 1}), 1, 0), (TokenIndices{0, 1, 5}));
  EXPECT_EQ(kept(keep_best(scores, 1, 1, {.sink = 1, .window = 1}), 1, 0), (TokenIndices{0, 5}));
  EXPECT_EQ(kept(keep_best(scores, 1, 3, {.sink = 10, .window = 10}), 1, 0), (TokenIndices{0, 1, 2, 3, 4, 5}));
}

TEST(Keep, EvictedTokensAreNeitherKeptNorCounted) {
  const std::vector<float> scores = {kMasked, 9, kMasked, 7, 6, kMasked};
  EXPECT_EQ(kept(keep_best(scores, 1, 2, {.sink = 1, .window = 1}), 1, 0), (TokenIndices{1, 3}));
  EXPECT_EQ(kept(keep_best(scores, 1, 9, {.block = 3}), 1, 0), (TokenIndices{1, 3, 4}));
}

TEST(Keep, BlocksAreKeptOrEvictedTogether) {
  std::vector<float> scores(40);
  scores[7] = 10;                               // one high score
  for (int i = 20; i < 30; ++i) scores[i] = 2;  // a better mean
  EXPECT_EQ(kept(keep_best(scores, 1, 10, {.block = 10}), 1, 0),
            (TokenIndices{20, 21, 22, 23, 24, 25, 26, 27, 28, 29}));
  const TokenIndices two = kept(keep_best(scores, 1, 25, {.block = 10}), 1, 0);
  EXPECT_EQ(two.size(), 20u);
  EXPECT_EQ(two.front(), 0);
}

TEST(Keep, HeadsOfALayerShareABudgetByScore) {
  std::mt19937 random(test::seed(1));
  std::uniform_real_distribution<float> uniform;
  std::vector<float> scores(3 * 100);
  for (int i = 0; i < 300; ++i) scores[i] = uniform(random) + (i < 100 ? 1 : 0);  // the first head scores higher
  const std::vector<char> keep = keep_best(scores, 3, 50, {.by_layer = true});
  const size_t first = kept(keep, 3, 0).size(), second = kept(keep, 3, 1).size(), third = kept(keep, 3, 2).size();
  EXPECT_EQ(first + second + third, 150u);
  EXPECT_EQ(first, 100u);
  EXPECT_GE(second, 10u);
  EXPECT_GE(third, 10u);
  std::vector<float> one_sided(300, 1);
  for (int i = 200; i < 300; ++i) one_sided[i] = 0.001f * static_cast<float>(i);
  EXPECT_EQ(kept(keep_best(one_sided, 3, 50, {.by_layer = true}), 3, 2).size(), 10u) << "a fifth of an even share";
}

TEST(Keep, RandomScoresKeepAtMostTheBudget) {
  std::mt19937 random(test::seed(1));
  for (int round = 0; round < 200; ++round) {
    const int heads = 1 + random() % 4;
    const int64_t n = 1 + random() % 300;
    std::vector<float> scores(heads * n);
    for (float& s : scores) s = random() % 3 ? static_cast<float>(random() % 20) : kMasked;
    KeepRule rule;
    rule.sink = random() % 5;
    rule.window = random() % 5;
    rule.block = 1 + (random() % 2) * (random() % 30);
    rule.by_layer = random() % 2;
    const int64_t budget = 12 + random() % 200;
    const std::vector<char> keep = keep_best(scores, heads, budget, rule);
    int64_t all = 0, present = 0, max_kept = 0;
    for (int h = 0; h < heads; ++h) {
      int64_t head_present = 0;
      for (int64_t t = 0; t < n; ++t) {
        if (scores[h * n + t] == kMasked) {
          ASSERT_FALSE(keep[h * n + t]);
          continue;
        }
        ++head_present;
        all += keep[h * n + t];
        ASSERT_TRUE(keep[h * n + t] || (t >= rule.sink && t < n - rule.window));
      }
      present += head_present;
      max_kept += rule.by_layer ? head_present : std::min(head_present, budget);
    }
    max_kept = std::min(max_kept, heads * budget);
    EXPECT_LE(all, max_kept);
    EXPECT_TRUE(rule.block > 1 || all == max_kept) << all << " of " << max_kept;
    EXPECT_GT(all, max_kept - (rule.by_layer ? 1 : heads) * rule.block);
  }
}

}  // namespace
}  // namespace fathom
