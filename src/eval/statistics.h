#pragma once

#include <cstdint>
#include <span>

namespace fathom::eval {

/// A 95 % confidence interval.
struct Interval {
  double low = 0, high = 0;
};

/// NaN for no values.
double mean(std::span<const double> values);
/// The middle value, or the mean of the middle two; NaN for no values.
double median(std::span<const double> values);

/// For the mean of n scores in [0, 1]: Wilson's score interval with `mean` in the place of the share of successes.
/// Right for scores that are 0 or 1, wider than need be for fractions, whose variance is smaller. {0, 1} for n ≤ 0.
/// Wilson, Probable inference, the law of succession, and statistical inference, 1927.
Interval wilson_interval(double mean, int64_t n);

/// For the mean of values without bounds: Student's t. Infinitely wide for fewer than two values.
Interval t_interval(std::span<const double> values);

/// For the mean of independent estimates that have intervals of their own: their distances to the bounds add up as
/// standard errors do, each side for itself. All spans of the same size. Zou and Donner, Construction of confidence
/// limits about effect measures, 2008.
Interval interval_of_mean(std::span<const double> estimates, std::span<const Interval> intervals);

/// Whether the two have no value in common.
bool apart(const Interval& a, const Interval& b);

}  // namespace fathom::eval
