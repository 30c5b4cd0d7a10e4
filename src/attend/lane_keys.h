#pragma once

#include <vector>

#include "attend/queries.h"
#include "attend/selection.h"

namespace fathom {

/// The slot that holds token `index` of the sequence; the first one of a packed lane that begins later.
uint32_t slot_of(const PageTable& lane, int64_t index);

/// The keys of a page as floats, rotated to its position. keys: [64, key_dim], of which those of filled tokens are
/// defined.
void read_rotated(const Kernels& kernels, const PagedKv& kv, const PageEntry& entry, std::vector<float>& keys);

/// The sum of x[i]·y[i], in an order that does not depend on the machine.
float dot(const float* x, const float* y, int n);

/// A set of tokens of a lane, as pages with masks at their places, in order.
class TokenChoice {
 public:
  explicit TokenChoice(const PageTable& lane) : lane_(lane), masks_(lane.size()) {}
  /// Adds tokens [begin, end) of the sequence.
  void add(int64_t begin, int64_t end);
  /// Adds tokens of one slot.
  void add(uint32_t slot, uint64_t mask) { masks_[slot] |= mask; }
  void add_to(Selection& selection) const;

 private:
  const PageTable& lane_;
  std::vector<uint64_t> masks_;
};

}  // namespace fathom
