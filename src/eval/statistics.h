#pragma once

#include <cstdint>
#include <span>

namespace fathom::eval {

/// A 95 % confidence interval.
struct Interval {
  double low = 0, high = 0;
};

/// Returns the mean; NaN without values.
double mean(std::span<const double> values);
/// Returns the middle value, or the mean of the two middle values; NaN without values.
double median(std::span<const double> values);

/// Returns an interval for the mean of n scores in [0, 1]: Wilson's score interval with `mean` as the share of
/// successes (Wilson, Probable inference, the law of succession, and statistical inference, 1927). Correct for
/// scores that are 0 or 1; conservative for fractions, whose variance is smaller. Returns {0, 1} for n ≤ 0.
Interval wilson_interval(double mean, int64_t n);

/// Returns an interval for the mean of unbounded values by Student's t distribution. Infinitely wide for fewer than
/// two values.
Interval t_interval(std::span<const double> values);

/// Returns an interval for the mean of independent estimates with intervals: the distances to the lower and upper
/// bounds are each combined as standard errors are (Zou and Donner, Construction of confidence limits about effect
/// measures: a general approach, 2008). Both spans have the same size.
Interval interval_of_mean(std::span<const double> estimates, std::span<const Interval> intervals);

/// Returns whether the intervals have no value in common.
bool disjoint(const Interval& a, const Interval& b);

}  // namespace fathom::eval
