#include "train/masked_attention.h"

#include <ATen/ATen.h>

namespace fathom::train {

at::Tensor grouped_rows(const at::Tensor& from, int64_t kv_heads) {
  return from.unflatten(2, {kv_heads, from.size(2) / kv_heads}).permute({0, 2, 3, 1, 4});
}

at::Tensor ungrouped_rows(const at::Tensor& grouped) { return grouped.permute({0, 3, 1, 2, 4}).flatten(2, 3); }

at::Tensor masked_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale,
                            const at::Tensor& masked) {
  const int64_t kv_heads = k.size(2);
  const at::Tensor keys = grouped_rows(k, kv_heads).transpose(3, 4), values = grouped_rows(v, kv_heads);
  const at::Tensor scores = at::matmul(grouped_rows(q, kv_heads), keys).to(at::kFloat) * scale;
  const at::Tensor mask = masked.unsqueeze(1).unsqueeze(1);  // [sequences, 1, 1, queries, keys]
  const at::Tensor shares = at::softmax(scores.masked_fill(mask, kMaskedScore), -1).masked_fill(mask, 0);
  return ungrouped_rows(at::matmul(shares.to(v.scalar_type()), values));
}

}  // namespace fathom::train
