#include "eval/statistics.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <numeric>
#include <vector>

namespace fathom::eval {
namespace {

constexpr double kNormalQuantile = 1.959963984540054;  // 0.975 quantile of the normal distribution

/// 0.975 quantile of Student's t distribution.
double t_quantile(int64_t degrees) {
  static constexpr double kTable[] = {
      12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157, 2.228139,
      2.200985,  2.178813, 2.160369, 2.144787, 2.131450, 2.119905, 2.109816, 2.100922, 2.093024, 2.085963,
      2.079614,  2.073873, 2.068658, 2.063899, 2.059539, 2.055529, 2.051831, 2.048407, 2.045230, 2.042272};
  if (degrees <= static_cast<int64_t>(std::size(kTable))) return kTable[degrees - 1];
  // The expansion in 1/degrees about the normal quantile; accurate to at least four decimals here.
  const double z = kNormalQuantile, z3 = z * z * z, z5 = z3 * z * z, v = static_cast<double>(degrees);
  return z + (z3 + z) / (4 * v) + (5 * z5 + 16 * z3 + 3 * z) / (96 * v * v);
}

}  // namespace

double mean(std::span<const double> values) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double median(std::span<const double> values) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  const size_t middle = sorted.size() / 2;
  return sorted.size() % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

Interval wilson_interval(double mean, int64_t n) {
  if (n <= 0) return {0, 1};
  const double z = kNormalQuantile, count = static_cast<double>(n), shrink = 1 + z * z / count;
  const double centre = (mean + z * z / (2 * count)) / shrink;
  const double half =
      z / shrink * std::sqrt(std::max(0.0, mean * (1 - mean) / count + z * z / (4 * count * count)));
  // rounding must not exclude the mean itself
  return {std::max(0.0, std::min(mean, centre - half)), std::min(1.0, std::max(mean, centre + half))};
}

Interval t_interval(std::span<const double> values) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (values.size() < 2) return {-kInfinity, kInfinity};
  const double centre = mean(values), count = static_cast<double>(values.size());
  double squares = 0;
  for (const double value : values) squares += (value - centre) * (value - centre);
  const double half =
      t_quantile(static_cast<int64_t>(values.size()) - 1) * std::sqrt(squares / (count - 1) / count);
  return {centre - half, centre + half};
}

Interval interval_of_mean(std::span<const double> estimates, std::span<const Interval> intervals) {
  double below = 0, above = 0;
  for (size_t i = 0; i < estimates.size(); ++i) {
    below += std::pow(estimates[i] - intervals[i].low, 2);
    above += std::pow(intervals[i].high - estimates[i], 2);
  }
  const double centre = mean(estimates), count = static_cast<double>(estimates.size());
  return {centre - std::sqrt(below) / count, centre + std::sqrt(above) / count};
}

bool disjoint(const Interval& a, const Interval& b) { return a.high < b.low || b.high < a.low; }

}  // namespace fathom::eval
