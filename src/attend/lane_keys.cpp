#include "attend/lane_keys.h"

#include <algorithm>

namespace fathom {
namespace {

/// The last slot that begins at or before token `index`; the first if there is none.
uint32_t find_slot(const Lane& lane, int64_t index) {
  const auto after = std::ranges::upper_bound(lane, index, {}, &PageSlot::first);
  return static_cast<uint32_t>(std::max<int64_t>(1, after - lane.begin())) - 1;
}

}  // namespace

LaneKeys::LaneKeys(const Lane& lane, const PageStore& store, const PlaceRotations* rotations)
    : lane_(lane),
      store_(store),
      rotations_(rotations),
      key_(store.shape().key_dim),
      spare_(store.shape().key_dim) {}

uint32_t LaneKeys::slot_of(int64_t index) const { return find_slot(lane_, index); }

bool LaneKeys::visible(int64_t index) const {
  if (lane_.empty() || index < lane_.front().first) return false;  // a packed lane begins late
  const PageSlot& slot = lane_[slot_of(index)];
  return (slot.mask >> (index - slot.first) & 1) != 0;
}

const float* LaneKeys::key(int64_t index) {
  const PageSlot& slot = lane_[slot_of(index)];
  const PageShape& shape = store_.shape();
  read_key(shape.format, shape.key_dim, store_.keys(slot.page), static_cast<int>(index - slot.first), key_.data());
  const int pairs = rotations_ ? rotations_->pairs() : 0;
  if (pairs == 0) return key_.data();
  const PlaceRotations::View turn = rotations_->at(slot.place, spare_.data());
  for (int i = 0; i < pairs; ++i) {
    const float even = key_[2 * i], odd = key_[2 * i + 1];
    key_[2 * i] = even * turn.cos[i] - odd * turn.sin[i];
    key_[2 * i + 1] = even * turn.sin[i] + odd * turn.cos[i];
  }
  return key_.data();
}

float dot(const float* x, const float* y, int n) {
  constexpr int kLanes = 8;
  float sums[kLanes] = {};
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) sums[lane] += x[i + lane] * y[i + lane];
  }
  for (; i < n; ++i) sums[i % kLanes] += x[i] * y[i];
  float total = 0;
  for (const float sum : sums) total += sum;
  return total;
}

void TokenChoice::add(int64_t begin, int64_t end) {
  if (begin >= end || lane_.empty()) return;
  for (uint32_t s = find_slot(lane_, std::max<int64_t>(begin, 0)); s < lane_.size() && lane_[s].first < end; ++s)
    masks_[s] |= page_bits(begin - lane_[s].first, end - lane_[s].first);
}

void TokenChoice::add_to(Selection& selection) const {
  for (uint32_t s = 0; s < lane_.size(); ++s) {
    if (const uint64_t mask = masks_[s] & lane_[s].mask) selection.pages.push_back({s, lane_[s].place, mask, -1});
  }
}

}  // namespace fathom
