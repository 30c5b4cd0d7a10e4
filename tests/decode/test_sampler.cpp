#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "decode/random.h"
#include "decode/sampler.h"
#include "seed.h"

namespace fathom {
namespace {

const std::vector<std::string> kPlain = {"temperature:t=1"};

/// Returns Σ (observed − expected)² / expected over the tokens.
double chi_square(const std::vector<int>& counts, const std::vector<double>& probabilities, int draws) {
  double sum = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    sum += std::pow(counts[i] - draws * probabilities[i], 2) / (draws * probabilities[i]);
  }
  return sum;
}

TEST(Sampler, FrequenciesMatchProbabilitiesOverPositionsAndOverSeeds) {
  const std::vector<double> p = {0.5, 0.25, 0.125, 0.0625, 0.03125, 0.03125};
  std::vector<float> logits;
  for (const double value : p) logits.push_back(static_cast<float>(std::log(value)) + 3);
  constexpr int kDraws = 20000;
  std::vector<int> by_position(p.size()), by_seed(p.size());
  Sampler one(kPlain, 42);
  for (int i = 0; i < kDraws; ++i) {
    ++by_position[one.sample(logits, {}, i)];
    ++by_seed[Sampler(kPlain, i).sample(logits, {}, 9)];
  }
  EXPECT_LT(chi_square(by_position, p, kDraws), 20.5) << "5 degrees of freedom, 0.1 %";
  EXPECT_LT(chi_square(by_seed, p, kDraws), 20.5) << "5 degrees of freedom, 0.1 %";
}

TEST(Sampler, FrequenciesMatchProbabilitiesAfterTruncation) {
  const std::vector<float> logits = {0, 1, 2, 3, 4};
  Sampler sampler(std::vector<std::string>{"top-k:k=3", "temperature:t=2"}, 5);
  const double a = 1, b = std::exp(-0.5), c = std::exp(-1.0);
  constexpr int kDraws = 20000;
  std::vector<int> counts(5);
  for (int i = 0; i < kDraws; ++i) ++counts[sampler.sample(logits, {}, i)];
  EXPECT_EQ(counts[0] + counts[1], 0);
  EXPECT_LT(
      chi_square({counts[4], counts[3], counts[2]}, {a / (a + b + c), b / (a + b + c), c / (a + b + c)}, kDraws),
      13.8)
      << "2 degrees of freedom, 0.1 %";
}

TEST(Sampler, SkippingByTheGumbelBoundChangesNoDraw) {
  const uint32_t seed = test::seed(1);
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> logits(2000);
  for (float& logit : logits) logit = normal(random);
  Candidates candidates;
  candidates.assign(logits);
  for (int position = 0; position < 200; ++position) {
    int32_t best = 0;
    double best_value = -1e300;
    for (int32_t id = 0; id < 2000; ++id) {
      const double u = uniform_from(random_bits(seed, RandomStream::kToken, position, id));
      const double value = logits[id] - std::log(-std::log(u));
      if (value > best_value) best_value = value, best = id;
    }
    EXPECT_EQ(draw(candidates, seed, position), best);
  }
}

TEST(Sampler, DrawAtAPositionDoesNotDependOnEarlierDraws) {
  const std::vector<float> logits(50, 0.0f);
  Sampler fresh(kPlain, 11), used(kPlain, 11);
  for (int i = 0; i < 100; ++i) used.sample(logits, {}, i);
  for (int i = 99; i >= 0; --i) EXPECT_EQ(used.sample(logits, {}, i), fresh.sample(logits, {}, i));
}

TEST(Sampler, DrawDoesNotDependOnTheOrderOfCandidates) {
  std::vector<float> logits(300);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = std::sin(static_cast<float>(i));
  Sampler plain(kPlain, 3), sorted(std::vector<std::string>{"top-k:k=300", "temperature:t=1"}, 3);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(plain.sample(logits, {}, i), sorted.sample(logits, {}, i));
}

TEST(Sampler, OtherSeedsDrawOtherTokens) {
  const std::vector<float> logits(1000, 0.0f);
  Sampler a(kPlain, 1), b(kPlain, 2);
  int same = 0;
  for (int i = 0; i < 100; ++i) same += a.sample(logits, {}, i) == b.sample(logits, {}, i);
  EXPECT_LT(same, 5);
}

}  // namespace
}  // namespace fathom
