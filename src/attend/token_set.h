#pragma once

#include <vector>

#include "attend/queries.h"
#include "attend/selection.h"

namespace fathom {

/// The entry that holds token `index` of the sequence; the first one of a compacted table that begins later.
uint32_t entry_of(const PageTable& table, int64_t index);

/// The keys of a page as floats, rotated to its position. keys: [64, key_dim], of which those of filled tokens are
/// defined.
void read_rotated(const Kernels& kernels, const PagedKv& kv, const PageEntry& entry, std::vector<float>& keys);

/// The sum of x[i]·y[i], in an order that does not depend on the machine.
float dot(const float* x, const float* y, int n);

/// A set of tokens of a table, as pages with masks at their places, in order.
class TokenSet {
 public:
  explicit TokenSet(const PageTable& table) : table_(table), masks_(table.size()) {}
  /// Adds tokens [begin, end) of the sequence.
  void add(int64_t begin, int64_t end);
  /// Adds tokens of one entry.
  void add(uint32_t entry, uint64_t mask) { masks_[entry] |= mask; }
  void add_to(Selection& selection) const;

 private:
  const PageTable& table_;
  std::vector<uint64_t> masks_;
};

}  // namespace fathom
