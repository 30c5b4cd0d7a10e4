#pragma once

#include <cstdint>
#include <vector>

#include "attend/queries.h"

namespace fathom {

/// The queries of the newest tokens in one layer, rotated by their positions.
class QueryTail {
 public:
  /// Adds the queries of a pass and keeps the newest `max_rows`. Queries that do not follow the stored ones replace
  /// them.
  void add(const LayerQueries& queries, int64_t max_rows);
  /// Removes the queries of all tokens after the first `tokens` of the sequence.
  void rewind(int64_t tokens);

  void save(ByteWriter& out, const SequenceLayer& layer) const;
  /// Restores what save() wrote, for this layer. Throws Error for queries of another width or of later tokens.
  void load(ByteReader& in, const SequenceLayer& layer);

  int64_t rows() const { return rows_; }
  /// Returns the sequence index of the oldest query.
  int64_t begin() const { return end_ - rows_; }
  /// Returns the sequence index after the newest query.
  int64_t end() const { return end_; }
  /// Returns the queries of `group` heads from `head` on: [rows, group, key_dim].
  std::vector<float> of_heads(int head, int group) const;

 private:
  float* row(int64_t token) { return ring_.data() + token % max_rows_ * row_floats_; }

  std::vector<float> ring_;  // [max_rows, heads, key_dim]: the query of token t is in row t mod max_rows
  int64_t max_rows_ = 0, row_floats_ = 0, key_dim_ = 0;
  int64_t rows_ = 0, end_ = 0;
};

}  // namespace fathom
