#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace fathom::train {

/// Returns the sizes of ⌈count / factor⌉ groups of consecutive rows that differ by at most 1; one group if there
/// are fewer rows than `factor`. count, factor ≥ 1.
std::vector<int64_t> pooling_groups(int64_t count, int64_t factor);

/// Returns the means of the groups, [sequences, groups, width]. x: [sequences, count, width].
at::Tensor pooled_rows(const at::Tensor& x, int64_t factor);

}  // namespace fathom::train
