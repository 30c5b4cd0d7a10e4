#pragma once

#include <span>
#include <vector>

namespace fathom {

/// The `rank` directions in which the rows of a matrix K lie most: its right singular vectors of the largest
/// singular values, from KᵀK. gram: [n, n], of which the lower half is read; 1 ≤ rank ≤ n. Returns [n, rank], of
/// the largest first.
std::vector<float> principal_axes(std::span<const float> gram, int n, int rank);

}  // namespace fathom
