#pragma once

#include <span>
#include <vector>

namespace fathom {

/// Returns the right singular vectors of a matrix K with the `rank` largest singular values, computed from KᵀK.
/// gram: KᵀK, [n, n], of which only the lower triangle is read; 1 ≤ rank ≤ n. Returns [n, rank], the vector of the
/// largest singular value first. Throws Error if the eigenvalues cannot be computed.
std::vector<float> principal_axes(std::span<const float> gram, int n, int rank);

}  // namespace fathom
