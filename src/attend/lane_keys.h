#pragma once

#include <vector>

#include "attend/selector.h"

namespace fathom {

/// Single keys of a lane by their place in the sequence, rotated to their true positions.
class LaneKeys {
 public:
  /// All must outlive it. rotations: null for a model without.
  LaneKeys(const Lane& lane, const PageStore& store, const PlaceRotations* rotations);

  /// The slot that holds token `index` of the sequence; the lane's first one if it begins later.
  uint32_t slot_of(int64_t index) const;
  /// Whether the token may be attended to.
  bool visible(int64_t index) const;
  /// The key of token `index`, [key_dim]; valid until the next call.
  const float* key(int64_t index);

 private:
  const Lane& lane_;
  const PageStore& store_;
  const PlaceRotations* rotations_;
  std::vector<float> key_, spare_;
};

/// The sum of x[i]·y[i], in an order that does not depend on the machine.
float dot(const float* x, const float* y, int n);

/// A set of tokens of a lane, as pages with masks at their places, in order.
class TokenChoice {
 public:
  explicit TokenChoice(const Lane& lane) : lane_(lane), masks_(lane.size()) {}
  /// Adds tokens [begin, end) of the sequence.
  void add(int64_t begin, int64_t end);
  /// Adds tokens of one slot.
  void add(uint32_t slot, uint64_t mask) { masks_[slot] |= mask; }
  void add_to(Selection& selection) const;

 private:
  const Lane& lane_;
  std::vector<uint64_t> masks_;
};

}  // namespace fathom
