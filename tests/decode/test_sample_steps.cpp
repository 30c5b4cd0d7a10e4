#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "base/error.h"
#include "decode/logarithms.h"
#include "decode/sampler.h"
#include "seed.h"

namespace fathom {
namespace {

constexpr float kInfiniteLogit = std::numeric_limits<float>::infinity();

/// Returns the probabilities by id after the steps.
std::map<int32_t, double> after(const std::vector<std::string>& steps, const std::vector<float>& logits,
                                const std::vector<int32_t>& history = {}) {
  Sampler sampler(steps);
  const Candidates& candidates = sampler.distribution(logits, history);
  std::map<int32_t, double> result;
  for (const Candidate& c : candidates.all()) result[c.id] = std::exp(c.logit - candidates.log_sum());
  return result;
}

void expect_distribution(const std::map<int32_t, double>& found, const std::map<int32_t, double>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (const auto& [id, p] : expected) {
    ASSERT_TRUE(found.contains(id)) << id;
    EXPECT_NEAR(found.at(id), p, 1e-6) << id;
  }
}

// Ids are not in order of probability.
const std::vector<float> kLogits = test::log_of({0.1, 0.4, 0.05, 0.25, 0.2});

TEST(SampleSteps, EmptyChainTakesTheBestToken) { expect_distribution(after({}, kLogits), {{1, 1}}); }

TEST(SampleSteps, TiesGoToTheLowestId) {
  expect_distribution(after({"greedy"}, {0, 2, 1, 2, 2}), {{1, 1}});
  expect_distribution(after({"top-k:k=2", "temperature:t=1"}, {0, 2, 1, 2, 2}), {{1, 0.5}, {3, 0.5}});
}

TEST(SampleSteps, TemperatureDividesLogits) {
  // t = 1/2 squares the probabilities: 0.01, 0.16, 0.0025, 0.0625, 0.04, sum 0.275
  expect_distribution(
      after({"temperature:t=0.5"}, kLogits),
      {{0, 0.01 / 0.275}, {1, 0.16 / 0.275}, {2, 0.0025 / 0.275}, {3, 0.0625 / 0.275}, {4, 0.04 / 0.275}});
}

TEST(SampleSteps, TemperatureZeroTakesTheBestToken) {
  expect_distribution(after({"temperature:t=0"}, kLogits), {{1, 1}});
}

TEST(SampleSteps, VeryLowTemperatureStaysFinite) {
  const auto found = after({"temperature:t=1e-30"}, {-1e30f, 3e30f, 2e30f});
  EXPECT_DOUBLE_EQ(found.at(1), 1);
}

TEST(SampleSteps, TopKKeepsTheBestAndTheirProportions) {
  expect_distribution(after({"top-k:k=3"}, kLogits), {{1, 0.4 / 0.85}, {3, 0.25 / 0.85}, {4, 0.2 / 0.85}});
}

TEST(SampleSteps, TopKBeyondTheVocabularyKeepsAll) { EXPECT_EQ(after({"top-k:k=4k"}, kLogits).size(), 5); }

TEST(SampleSteps, TopPKeepsTheFewestThatReachP) {
  expect_distribution(after({"top-p:p=0.6"}, kLogits), {{1, 0.4 / 0.65}, {3, 0.25 / 0.65}});
  expect_distribution(after({"top-p:p=0.66"}, kLogits), {{1, 0.4 / 0.85}, {3, 0.25 / 0.85}, {4, 0.2 / 0.85}});
  expect_distribution(after({"top-p:p=0"}, kLogits), {{1, 1}});
  EXPECT_EQ(after({"top-p:p=1"}, kLogits).size(), 5);
}

TEST(SampleSteps, TopPAppliesToTheResultOfEarlierSteps) {
  // of 0.4, 0.25 and 0.2 left by top-k the first two hold 0.65 / 0.85 = 0.76
  expect_distribution(after({"top-k:k=3", "top-p:p=0.7"}, kLogits), {{1, 0.4 / 0.65}, {3, 0.25 / 0.65}});
  expect_distribution(after({"top-p:p=0.7", "top-k:k=3"}, kLogits),
                      {{1, 0.4 / 0.85}, {3, 0.25 / 0.85}, {4, 0.2 / 0.85}});
}

TEST(SampleSteps, TopPOfALargeVocabularyEqualsAFullSort) {
  std::mt19937 random(test::seed(1));
  std::normal_distribution<float> normal(0, 2);
  std::vector<float> logits(5000);
  for (float& logit : logits) logit = normal(random);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(double{logit});
  std::vector<std::pair<float, int32_t>> sorted;
  for (int32_t i = 0; i < 5000; ++i) sorted.push_back({-logits[i], i});
  std::sort(sorted.begin(), sorted.end());
  const auto found = after({"top-p:p=0.9"}, logits);
  double mass = 0;
  size_t count = 0;
  while (mass < 0.9) {
    EXPECT_TRUE(found.contains(sorted[count].second));
    mass += std::exp(-double{sorted[count++].first}) / sum;
  }
  EXPECT_EQ(found.size(), count);
}

TEST(SampleSteps, MinPComparesWithTheBest) {
  expect_distribution(after({"min-p:p=0.3"}, kLogits), {{1, 0.4 / 0.85}, {3, 0.25 / 0.85}, {4, 0.2 / 0.85}});
  expect_distribution(after({"min-p:p=1"}, kLogits), {{1, 1}});
  EXPECT_EQ(after({"min-p:p=0"}, kLogits).size(), 5);
}

TEST(SampleSteps, TypicalKeepsTokensNearestToTheEntropy) {
  // entropy 1.4150 nats; |−ln p − H|: 0: 0.8876, 1: 0.4987, 2: 1.5807, 3: 0.0287, 4: 0.1945
  expect_distribution(after({"typical:p=0.4"}, kLogits), {{3, 0.25 / 0.45}, {4, 0.2 / 0.45}});
  expect_distribution(after({"typical:p=0.5"}, kLogits), {{1, 0.4 / 0.85}, {3, 0.25 / 0.85}, {4, 0.2 / 0.85}});
  EXPECT_EQ(after({"typical:p=1"}, kLogits).size(), 5);
}

TEST(SampleSteps, TypicalIgnoresInfinitelyNegativeLogits) {
  expect_distribution(after({"typical:p=0.9"}, {-kInfiniteLogit, 0, 0}), {{1, 0.5}, {2, 0.5}});
}

TEST(SampleSteps, RepetitionDividesPositiveAndMultipliesNegativeLogits) {
  Sampler sampler(std::vector<std::string>{"repetition:penalty=2", "temperature:t=1"});
  const Candidates& found = sampler.distribution(std::vector<float>{4, -4, 4, -4}, std::vector<int32_t>{0, 1, 1});
  std::map<int32_t, float> logits;
  for (const Candidate& c : found.all()) logits[c.id] = c.logit;
  EXPECT_EQ(logits[2] - logits[0], 2);
  EXPECT_EQ(logits[2] - logits[1], 12);
  EXPECT_EQ(logits[2] - logits[3], 8);
}

TEST(SampleSteps, PresenceCountsOnceAndFrequencyEachTime) {
  const std::vector<float> even(3, 0.0f);
  const std::vector<int32_t> history = {1, 1, 1, 2};
  const double p = std::exp(-0.5), pp = std::exp(-1.5);
  expect_distribution(after({"presence:penalty=0.5", "temperature:t=1"}, even, history),
                      {{0, 1 / (1 + 2 * p)}, {1, p / (1 + 2 * p)}, {2, p / (1 + 2 * p)}});
  expect_distribution(after({"frequency:penalty=0.5", "temperature:t=1"}, even, history),
                      {{0, 1 / (1 + p + pp)}, {1, pp / (1 + p + pp)}, {2, p / (1 + p + pp)}});
}

TEST(SampleSteps, PenaltiesCountTheirWindowOnly) {
  const std::vector<float> logits = {1, 2, 3};
  expect_distribution(after({"presence:penalty=5,window=2"}, logits, {2, 0, 0}), {{2, 1}});
  expect_distribution(after({"presence:penalty=5,window=3"}, logits, {2, 0, 0}), {{1, 1}});
}

TEST(SampleSteps, PenaltiesApplyAfterTruncation) {
  const auto found = after({"top-k:k=2", "presence:penalty=1"}, kLogits, {1});
  const double p = 0.4 * std::exp(-1);
  expect_distribution(found, {{1, p / (p + 0.25)}, {3, 0.25 / (p + 0.25)}});
}

TEST(SampleSteps, PenaltiesIgnoreTokensOutsideTheVocabulary) {
  expect_distribution(after({"presence:penalty=9"}, {1, 2}, {-1, 7}), {{1, 1}});
}

TEST(SampleSteps, BiasIsAddedToTheLogitsOfItsTokens) {
  const double p = std::exp(1);
  expect_distribution(after({"bias:tokens=1@1+2@-100+9@5", "temperature:t=1"}, {0, 0, 0}),
                      {{0, 1 / (1 + p)}, {1, p / (1 + p)}, {2, 0}});
  expect_distribution(after({"bias:tokens=0@2.5"}, {1, 2}), {{0, 1}});
  EXPECT_TRUE(Sampler(std::vector<std::string>{"bias:tokens=1@1"}).greedy());
}

TEST(SampleSteps, BadBiasesAreUsageErrors) {
  for (const char* tokens : {"1", "1@", "@1", "1@101", "-1@2", "+", "1@nan", "1@2x", "99999999999@1"}) {
    EXPECT_THROW(Sampler(std::vector<std::string>{std::string("bias:tokens=") + tokens}), Error) << tokens;
  }
}

TEST(SampleSteps, ChainOfPenaltiesAloneIsGreedy) {
  EXPECT_TRUE(Sampler(std::vector<std::string>{"repetition", "frequency"}).greedy());
  EXPECT_TRUE(Sampler(std::vector<std::string>{"temperature:t=0"}).greedy());
  EXPECT_FALSE(Sampler(std::vector<std::string>{"repetition", "top-k"}).greedy());
}

TEST(SampleSteps, InvalidLogitErrorNamesTheToken) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), kInfiniteLogit}) {
    try {
      Sampler().sample(std::vector<float>{0, 1, bad}, {}, 0);
      FAIL() << "no error for " << bad;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("token 2"), std::string::npos) << error.what();
    }
  }
  EXPECT_THROW(Sampler().sample(std::vector<float>{-kInfiniteLogit, -kInfiniteLogit}, {}, 0), Error);
  EXPECT_THROW(Sampler().sample(std::vector<float>{}, {}, 0), Error);
}

TEST(SampleSteps, UnknownStepsAndParametersAreUsageErrors) {
  for (const std::string spec :
       {"top-q:p=1", "top-k:n=1", "top-k:k=0", "top-p:p=1.5", "temperature:t=-1", "min-p:p=x"}) {
    try {
      Sampler sampler(std::vector<std::string>{spec});
      FAIL() << spec;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), Error::Kind::kUsage) << error.what();
    }
  }
}

}  // namespace
}  // namespace fathom
