#include "train/pooling.h"

#include <ATen/ATen.h>

namespace fathom::train {

std::vector<int64_t> pooling_groups(int64_t count, int64_t factor) {
  const int64_t groups = (count + factor - 1) / factor;
  std::vector<int64_t> sizes;
  for (int64_t i = 0; i < groups; ++i) sizes.push_back((i + 1) * count / groups - i * count / groups);
  return sizes;
}

at::Tensor pooled_rows(const at::Tensor& x, int64_t factor) {
  std::vector<at::Tensor> means;
  for (const at::Tensor& group : x.split_with_sizes(pooling_groups(x.size(1), factor), 1))
    means.push_back(group.mean(1));
  return at::stack(means, 1);
}

}  // namespace fathom::train
