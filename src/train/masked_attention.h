#pragma once

#include <ATen/core/Tensor.h>

namespace fathom::train {

/// The rows of grouped-query attention in the order in which they are multiplied. from: [sequences, length, heads,
/// dimensions]. Returns queries as [sequences, kv_heads, group, length, dimensions], keys and values with a group
/// of 1.
at::Tensor grouped_rows(const at::Tensor& from, int64_t kv_heads);
/// The inverse for queries: returns [sequences, length, heads, dimensions].
at::Tensor ungrouped_rows(const at::Tensor& grouped);

/// Returns softmax attention with any mask, [sequences, queries, heads, value_dim]. q: [sequences, queries, heads,
/// key_dim]; k, v: [sequences, keys, kv_heads, dimensions]; masked: [sequences or 1, queries, keys], true for keys
/// that a query must not attend to. The result of a query without keys is 0. Memory grows with queries · keys.
at::Tensor masked_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale,
                            const at::Tensor& masked);

/// A value below every score, which gives a share of 0.
inline constexpr double kMaskedScore = -1e30;

}  // namespace fathom::train
