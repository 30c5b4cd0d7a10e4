#pragma once

#include <cstdint>
#include <span>

namespace fathom {

/// How well two groups of items are told apart: modularity (larger is better) or conductance (smaller is better).
enum class SplitMeasure { kModularity, kConductance };

/// Where to part n items in order so that those on either side are most alike: the first item of the second part,
/// in [begin, end); of equal ones the last. end − 1 where similarities do not make a graph (their sum is not
/// positive). similarity: [n, n], symmetric. 0 < begin < end ≤ n.
int64_t best_split(std::span<const float> similarity, int64_t n, int64_t begin, int64_t end, SplitMeasure measure);

}  // namespace fathom
