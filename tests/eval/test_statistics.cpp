#include "eval/statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace fathom::eval {
namespace {

TEST(Statistics, WilsonIntervalEqualsPublishedValues) {
  const Interval all = wilson_interval(1, 10), none = wilson_interval(0, 20), most = wilson_interval(0.95, 100);
  EXPECT_NEAR(all.low, 0.7225, 5e-5);
  EXPECT_EQ(all.high, 1);
  EXPECT_EQ(none.low, 0);
  EXPECT_NEAR(none.high, 0.1611, 5e-5);
  EXPECT_NEAR(most.low, 0.8882, 5e-5);
  EXPECT_NEAR(most.high, 0.9785, 5e-5);
}

TEST(Statistics, WilsonIntervalContainsTheMeanAndNarrowsWithSamples) {
  for (const double mean : {0.0, 0.013, 0.5, 0.999, 1.0}) {
    double width = 2;
    for (const int64_t n : {1, 2, 10, 1000, 1000000}) {
      const Interval interval = wilson_interval(mean, n);
      EXPECT_LE(0, interval.low);
      EXPECT_LE(interval.low, mean);
      EXPECT_GE(interval.high, mean);
      EXPECT_LE(interval.high, 1);
      EXPECT_LT(interval.high - interval.low, width);
      width = interval.high - interval.low;
    }
  }
}

TEST(Statistics, WilsonIntervalOfNoSamplesIsZeroToOne) {
  const Interval interval = wilson_interval(0, 0);
  EXPECT_EQ(interval.low, 0);
  EXPECT_EQ(interval.high, 1);
}

TEST(Statistics, StudentIntervalIsTheQuantileTimesTheStandardError) {
  const std::vector<double> three = {1, 2, 3};  // standard error 1/√3; t with two degrees of freedom is 4.3027
  const Interval interval = t_interval(three);
  EXPECT_NEAR(interval.low, 2 - 4.3027 / std::sqrt(3), 1e-4);
  EXPECT_NEAR(interval.high, 2 + 4.3027 / std::sqrt(3), 1e-4);

  std::vector<double> many;  // 61 values of ±1; t with 60 degrees of freedom is 2.0003
  for (int i = 0; i < 61; ++i) many.push_back(i % 2 == 0 ? 1 : -1);
  const double centre = 1.0 / 61, deviation = std::sqrt((61 - 61 * centre * centre) / 60);
  EXPECT_NEAR(t_interval(many).high - centre, 2.0003 * deviation / std::sqrt(61), 1e-5);
}

TEST(Statistics, StudentIntervalOfOneValueIsUnbounded) {
  EXPECT_TRUE(std::isinf(t_interval(std::vector<double>{3}).low));
  EXPECT_TRUE(std::isinf(t_interval({}).high));
}

TEST(Statistics, MeanAndMedianOfNoValuesAreNaN) {
  EXPECT_TRUE(std::isnan(mean({})));
  EXPECT_TRUE(std::isnan(median({})));
}

TEST(Statistics, MedianIgnoresTheOrder) {
  EXPECT_EQ(median(std::vector<double>{9, 1, 2}), 2);
  EXPECT_EQ(median(std::vector<double>{9, 1, 2, 4}), 3);
  EXPECT_EQ(mean(std::vector<double>{9, 1, 2, 4}), 4);
}

TEST(Statistics, IntervalOfAMeanNarrowsAsStandardErrorsDo) {
  const std::vector<double> scores(4, 0.5);
  const std::vector<Interval> intervals(4, {0.3, 0.6});
  const Interval all = interval_of_mean(scores, intervals);
  EXPECT_NEAR(all.low, 0.4, 1e-12);
  EXPECT_NEAR(all.high, 0.55, 1e-12);
}

TEST(Statistics, IntervalsThatTouchAreNotDisjoint) {
  EXPECT_FALSE(disjoint({0, 0.5}, {0.5, 1}));
  EXPECT_TRUE(disjoint({0, 0.4}, {0.5, 1}));
  EXPECT_TRUE(disjoint({0.5, 1}, {0, 0.4}));
}

}  // namespace
}  // namespace fathom::eval
