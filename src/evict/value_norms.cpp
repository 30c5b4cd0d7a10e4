#include "evict/value_norms.h"

#include <algorithm>
#include <bit>

namespace fathom {
namespace {

constexpr int64_t kRows = 512;  // tokens whose values are held as floats at the same time

/// Copies the values of the visible tokens that were read at indices [first, first + rows). out: [rows, value_dim],
/// initially zero.
void read_values(const PagedKv& kv, int head, int64_t first, int64_t rows, float* out) {
  const int dim = kv.shape().value_dim;
  const CompactedTokens& compacted = kv.compacted(head);
  for (const PageEntry& entry : kv.table(head)) {
    if (entry.mask == 0 || entry.first + entry.filled <= first)
      continue;  // no token is stored at an index below the one at which it was read
    for (uint64_t left = entry.mask; left != 0; left &= left - 1) {
      const int offset = std::countr_zero(left);
      const int64_t row = compacted.original_index(entry.first + offset) - first;
      if (row < 0 || row >= rows) continue;
      for (int d = 0; d < dim; ++d) out[row * dim + d] = kv.store().value(entry.page, offset, d);
    }
  }
}

}  // namespace

void ValueNorms::add(const PagedKv& kv, int layer, const OutputNorms& norms, ThreadPool& pool) {
  const int64_t kv_heads = kv.heads(), dim = kv.shape().value_dim;
  heads_.resize(kv_heads);
  std::vector<float> values, new_norms;
  for (int64_t first = std::ssize(heads_[0]); first < kv.tokens(); first += kRows) {
    const int64_t rows = std::min(kRows, kv.tokens() - first);
    values.assign(kv_heads * rows * dim, 0);
    new_norms.resize(kv_heads * rows);
    pool.parallel_for(kv_heads, [&](size_t h, int) {
      read_values(kv, static_cast<int>(h), first, rows, values.data() + h * rows * dim);
    });
    norms(layer, rows, values.data(), new_norms.data(), pool);
    for (int64_t h = 0; h < kv_heads; ++h)
      heads_[h].insert(heads_[h].end(), new_norms.begin() + h * rows, new_norms.begin() + (h + 1) * rows);
  }
}

void ValueNorms::save(ByteWriter& out) const {
  out.add(static_cast<int32_t>(heads_.size()));
  for (const std::vector<float>& norms : heads_) out.add_list(norms);
}

void ValueNorms::load(ByteReader& in, const SequenceLayer& layer) {
  heads_.resize(layer.take_heads(in));
  for (std::vector<float>& norms : heads_) {
    norms = in.take_list_up_to<float>(layer.tokens());
    in.check(norms.size() == heads_[0].size(), "expected as many norms of values in all heads");
  }
}

void ValueNorms::rewind(int64_t tokens) {
  for (std::vector<float>& norms : heads_) {
    if (std::ssize(norms) > tokens) norms.resize(tokens);
  }
}

}  // namespace fathom
