#include "attend/best_split.h"

#include <algorithm>
#include <limits>
#include <vector>

namespace fathom {
namespace {

/// Sums over the items before a split: their similarities to each other, and to all items.
struct SplitSide {
  double inside = 0, degree = 0;
};

/// Returns the quality of a split; conductance is negated, so that larger is better for both measures.
double quality(const SplitSide& before, double total, SplitMeasure measure) {
  const double across = before.degree - before.inside, rest = total - before.degree;
  if (measure == SplitMeasure::kModularity) {
    const double after_inside = rest - across;
    return (before.inside + after_inside - (before.degree * before.degree + rest * rest) / total) / (2 * total);
  }
  const double least = std::min(before.degree, rest);
  return least > 0 ? -across / least : -std::numeric_limits<double>::infinity();
}

}  // namespace

int64_t best_split(std::span<const float> similarity, int64_t n, int64_t begin, int64_t end, SplitMeasure measure) {
  std::vector<double> degrees(n);
  double total = 0;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) degrees[i] += similarity[i * n + j];
    total += degrees[i];
  }
  int64_t best = end - 1;
  if (!(total > 0)) return best;
  double best_quality = -std::numeric_limits<double>::infinity();
  SplitSide before;
  for (int64_t split = 1; split < end; ++split) {
    const int64_t added = split - 1;
    const float* row = similarity.data() + added * n;
    for (int64_t j = 0; j < added; ++j) before.inside += 2.0 * row[j];
    before.inside += row[added];
    before.degree += degrees[added];
    if (split < begin) continue;
    const double value = quality(before, total, measure);
    if (value >= best_quality) {
      best_quality = value;
      best = split;
    }
  }
  return best;
}

}  // namespace fathom
