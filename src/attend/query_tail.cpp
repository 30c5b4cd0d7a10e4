#include "attend/query_tail.h"

#include <algorithm>

#include "attend/key_scores.h"

namespace fathom {

void QueryTail::add(const LayerQueries& queries, int64_t max_rows) {
  const int64_t dim = queries.kv->shape().key_dim;
  if (max_rows_ != max_rows || row_floats_ != queries.heads * dim) {
    max_rows_ = max_rows, key_dim_ = dim, row_floats_ = queries.heads * dim;
    rows_ = 0;
  }
  if (end_ != queries.first) rows_ = 0;
  ring_.resize(max_rows_ * row_floats_);
  end_ = queries.first + queries.rows;
  const int64_t count = std::min(queries.rows, max_rows_);
  rows_ = std::min(rows_ + count, max_rows_);
  std::vector<float> spare(dim);
  for (int64_t r = queries.rows - count; r < queries.rows; ++r) {
    for (int h = 0; h < queries.heads; ++h)
      rotate_query(queries, r, h, spare.data(), row(queries.first + r) + h * dim);
  }
}

void QueryTail::rewind(int64_t tokens) {
  if (end_ <= tokens) return;
  rows_ = std::max<int64_t>(0, rows_ - (end_ - tokens));
  end_ = tokens;
}

void QueryTail::save(ByteWriter& out, const SequenceLayer& /*layer*/) const {
  out.add(end_);
  out.add(rows_);
  out.add(max_rows_);
  out.add_list(ring_);
}

void QueryTail::load(ByteReader& in, const SequenceLayer& layer) {
  end_ = in.take_int("tokens with queries", 0, layer.tokens());
  rows_ = in.take_int("stored queries", 0, end_);
  max_rows_ = in.take_int("room for queries", rows_, kPositionLimit);
  key_dim_ = layer.key_dim(), row_floats_ = layer.query_width();
  ring_ = in.take_list<float>(static_cast<size_t>(max_rows_ * row_floats_));
}

std::vector<float> QueryTail::of_heads(int head, int group) const {
  std::vector<float> queries(rows_ * group * key_dim_);
  for (int64_t i = 0; i < rows_; ++i) {
    const float* from = ring_.data() + (begin() + i) % max_rows_ * row_floats_ + head * key_dim_;
    std::copy_n(from, group * key_dim_, queries.data() + i * group * key_dim_);
  }
  return queries;
}

}  // namespace fathom
