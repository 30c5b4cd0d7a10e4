// Recycled: decode steps that attend to the tokens of the latest full step.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "reading.h"
#include "token_sets.h"

namespace fathom {
namespace {

using test::all_below;
using test::Reading;
using test::ReadingShape;

/// Returns the scores of a full step at the end of `tokens`: the maximum attention over the heads that share keys,
/// with max-pooling over neighbours.
std::vector<double> full_step_scores(Reading& reading, int kv_head, int64_t tokens) {
  std::vector<double> best(tokens), pooled(tokens);
  for (int h = kv_head * 2; h < kv_head * 2 + 2; ++h) {
    std::vector<double> row = reading.scores(tokens - 1, h, 0, tokens);
    Reading::softmax(row);
    for (int64_t t = 0; t < tokens; ++t) best[t] = std::max(best[t], row[t]);
  }
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t u = std::max<int64_t>(0, t - 3); u < std::min(tokens, t + 4); ++u)
      pooled[t] = std::max(pooled[t], best[u]);
  return pooled;
}

TEST(Recycled, StepsAttendToTheBestTokensOfTheLatestFullStep) {
  for (uint32_t seed = 1; seed <= 3; ++seed) {
    ReadingShape shape;
    shape.seed = seed;
    Reading reading(shape, "recycled:budget=50,share=0,stride=4,cosine=1");
    reading.read(1200);
    EXPECT_EQ(reading.attended(0), all_below(1200)) << "a prompt is read in full";
    int64_t full = 1200;
    for (int step = 1; step <= 9; ++step) {
      reading.read(1);
      const int64_t end = 1200 + step;
      for (int head = 0; head < 2; ++head) {
        const std::vector<int64_t> attended = reading.attended(head);
        if (step % 4 == 0) {
          EXPECT_EQ(attended, all_below(end));
          continue;
        }
        EXPECT_EQ(attended.size(), 50u);
        const std::vector<double> pooled = full_step_scores(reading, head, full);
        // among equal scores (neighbours of one high score) any token may be selected
        std::vector<double> sorted = pooled;
        std::ranges::sort(sorted, std::greater());
        const double least = sorted[50 - (end - full) - 1];
        for (const int64_t t : attended) EXPECT_TRUE(t >= full || pooled[t] >= least * (1 - 1e-4)) << t;
        for (int64_t t = full; t < end; ++t) EXPECT_TRUE(std::ranges::binary_search(attended, t)) << "new: " << t;
      }
      if (step % 4 == 0) full = end;
    }
  }
}

TEST(Recycled, BlocksAreSelectedByTheirBestToken) {
  constexpr int64_t kPrompt = 1200, kBlock = 16, kBlocks = kPrompt / kBlock;
  Reading reading({}, "recycled:budget=161,share=0,cosine=-1,block=16");
  reading.read(kPrompt);
  reading.read(1);
  for (int head = 0; head < 2; ++head) {
    const std::vector<double> pooled = full_step_scores(reading, head, kPrompt);
    std::vector<double> best;
    for (int64_t b = 0; b < kBlocks; ++b)
      best.push_back(*std::max_element(pooled.begin() + b * kBlock, pooled.begin() + (b + 1) * kBlock));
    std::vector<double> sorted = best;
    std::ranges::sort(sorted, std::greater());
    std::map<int64_t, int64_t> attended;  // tokens by block
    for (const int64_t t : reading.attended(head))
      if (t < kPrompt) ++attended[t / kBlock];
    EXPECT_EQ(attended.size(), 160u / kBlock);
    for (const auto& [block, tokens] : attended) {
      EXPECT_EQ(tokens, kBlock) << block;
      EXPECT_GE(best[block], sorted[160 / kBlock - 1] * (1 - 1e-4)) << block;
    }
  }
}

TEST(Recycled, TheLowestScoresAreReplacedFirst) {
  constexpr int64_t kPrompt = 1000, kBudget = 170;
  Reading reading({}, "recycled:budget=170,share=0,cosine=-1");  // no further full step
  reading.read(kPrompt);
  std::vector<double> pooled[2] = {full_step_scores(reading, 0, kPrompt), full_step_scores(reading, 1, kPrompt)};
  for (int64_t step = 1; step <= kBudget + 3; ++step) {
    reading.read(1);
    for (int head = 0; head < 2; ++head) {
      const std::vector<int64_t> attended = reading.attended(head);
      EXPECT_EQ(std::ssize(attended), std::max(kBudget, step));
      std::vector<double> sorted = pooled[head];
      std::ranges::sort(sorted, std::greater());
      const double least = step < kBudget ? sorted[kBudget - step - 1] : 2;
      for (const int64_t t : attended) {
        const double score = t < kPrompt ? pooled[head][t] : 2;
        ASSERT_GE(score, least * (1 - 1e-4)) << t << " in step " << step;
      }
      for (int64_t t = kPrompt; t < kPrompt + step; ++t) ASSERT_TRUE(std::ranges::binary_search(attended, t)) << t;
    }
  }
}

TEST(Recycled, FullStepsArePostponedWhileQueriesAreSimilar) {
  Reading reading({}, "recycled:budget=64,share=0,stride=2,cosine=0.5");
  for (int64_t t = 999; t < 1008; ++t)
    for (int h = 0; h < 4; ++h)
      for (int d = 0; d < 16; ++d) reading.query(t, h)[d] = (t < 1004 ? 1.0f : -1.0f) * static_cast<float>(d % 5);
  reading.read(1000);
  std::vector<int64_t> full;
  for (int64_t t = 1000; t < 1008; ++t) {
    reading.read(1);
    if (reading.attended(0).size() > 64) full.push_back(t);
  }
  EXPECT_EQ(full, (std::vector<int64_t>{1005}));  // compared at 1001, 1003, 1005 (different) and 1007
}

TEST(Recycled, TheStepAfterARewindToBeforeTheFullStepIsFull) {
  Reading reading({}, "recycled:budget=64,share=0,stride=9,cosine=1");
  reading.read(1000);
  reading.read(1);
  reading.read(1);
  reading.remove_newest(1);
  reading.read(1);
  EXPECT_EQ(reading.attended(0).size(), 64u);
  reading.remove_newest(3);
  reading.read(1);
  EXPECT_EQ(reading.attended(0).size(), 1000u);
}

}  // namespace
}  // namespace fathom
