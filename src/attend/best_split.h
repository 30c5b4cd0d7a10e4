#pragma once

#include <cstdint>
#include <span>

namespace fathom {

/// The quality of a split of items into two groups: modularity (larger is better) or conductance (smaller is
/// better).
enum class SplitMeasure { kModularity, kConductance };

/// Splits n ordered items into two groups with the best measure. Returns the index of the first item of the second
/// group, in [begin, end); among equal splits the last one. If the sum of the similarities is not positive, they do
/// not define a graph, and the result is end − 1. similarity: [n, n], symmetric. Requires 0 < begin < end ≤ n.
int64_t best_split(std::span<const float> similarity, int64_t n, int64_t begin, int64_t end, SplitMeasure measure);

}  // namespace fathom
