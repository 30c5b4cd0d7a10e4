#pragma once

#include <cstdint>
#include <vector>

#include "attend/queries.h"

namespace fathom {

/// The queries of the newest tokens in one layer, rotated by their positions. A state may keep one of each layer.
class QueryTail {
 public:
  /// Adds the queries of a pass; of all, the newest `most` are kept. What does not follow replaces what is there.
  void add(const LayerQueries& queries, int64_t most);
  /// The sequence has only this many tokens any more.
  void rewind(int64_t tokens);

  int64_t rows() const { return rows_; }
  /// Sequence index of the oldest, and one past the newest.
  int64_t begin() const { return end_ - rows_; }
  int64_t end() const { return end_; }
  /// The queries of `group` heads from `head` on: [rows, group, key_dim].
  std::vector<float> of_heads(int head, int group) const;

 private:
  float* row(int64_t token) { return ring_.data() + token % most_ * row_floats_; }

  std::vector<float> ring_;  // [most, heads, key_dim]: that of token t in row t mod most
  int64_t most_ = 0, row_floats_ = 0, key_dim_ = 0;
  int64_t rows_ = 0, end_ = 0;
};

}  // namespace fathom
