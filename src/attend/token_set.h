#pragma once

#include <vector>

#include "attend/queries.h"
#include "attend/selection.h"

namespace fathom {

/// Returns the index of the page-table entry that holds token `index` of the sequence. If a compacted table begins
/// after this token, returns 0.
uint32_t entry_of(const PageTable& table, int64_t index);

/// Reads the keys of a page as floats, rotated by the page's position. Resizes keys to [64, key_dim]; rows after
/// the filled tokens are undefined.
void read_rotated(const Kernels& kernels, const PagedKv& kv, const PageEntry& entry, std::vector<float>& keys);

/// Returns Σ x[i]·y[i], summed in an order that does not depend on the machine.
float dot(const float* x, const float* y, int n);

/// A set of tokens of a page table, stored as one mask per entry.
class TokenSet {
 public:
  explicit TokenSet(const PageTable& table) : table_(table), masks_(table.size()) {}
  /// Adds tokens [begin, end) of the sequence.
  void add(int64_t begin, int64_t end);
  /// Adds tokens of one page-table entry.
  void add(uint32_t entry, uint64_t mask) { masks_[entry] |= mask; }
  /// Appends the pages that have visible tokens in the set to a selection, in order and at their own positions.
  void add_to(Selection& selection) const;

 private:
  const PageTable& table_;
  std::vector<uint64_t> masks_;
};

}  // namespace fathom
