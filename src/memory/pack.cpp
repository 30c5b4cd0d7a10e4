// The visible tokens of a lane move together, so that a sequence takes room and distances for them alone.
#include <algorithm>
#include <bit>

#include "kernels/page_copy.h"
#include "memory/memory.h"

namespace fathom {
namespace {

/// Slots [begin, end) of a lane, whose tokens are to lie anew; those before and behind have no gaps.
struct Middle {
  size_t begin, end;
};

Middle middle_of(const Lane& lane) {
  const auto whole = [&](size_t s) { return lane[s].mask == page_bits(0, lane[s].filled); };
  const auto full = [&](size_t s) { return whole(s) && lane[s].filled == kPageTokens; };
  Middle middle{0, lane.size()};
  if (!lane.empty() && whole(lane.size() - 1)) --middle.end;  // the last page goes on being filled
  while (middle.end < lane.size() && middle.end > 0 && full(middle.end - 1)) --middle.end;
  while (middle.begin < middle.end && full(middle.begin)) ++middle.begin;
  return middle;
}

int64_t count_visible(const Lane& lane, Middle slots) {
  int64_t count = 0;
  for (size_t s = slots.begin; s < slots.end; ++s) count += std::popcount(lane[s].mask);
  return count;
}

/// Fills pages with single tokens of others.
class PageFiller {
 public:
  PageFiller(PageStore& store, const Kernels& kernels, const PlaceRotations& rotations, int64_t tokens)
      : store_(store),
        rotations_(rotations),
        kernels_(kernels),
        key_(store.shape().key_dim),
        sin_(rotations.pairs()) {
    slots_.reserve((tokens + kPageTokens - 1) / kPageTokens);
  }
  ~PageFiller() {
    for (const PageSlot& slot : slots_) store_.release(slot.page);
  }
  PageFiller(const PageFiller&) = delete;

  void add(PageId page, int token) {
    if (slots_.empty() || slots_.back().filled == kPageTokens) slots_.push_back({store_.allocate()});
    PageSlot& slot = slots_.back();
    const PageShape& shape = store_.shape();
    if (token == slot.filled || rotations_.pairs() == 0) {
      copy_key(shape.format, shape.key_dim, store_.keys(page), token, store_.keys(slot.page), slot.filled);
    } else {
      turn_key(store_.keys(page), token, slot);
    }
    copy_value(shape.format, shape.value_dim, store_.values(page), token, store_.values(slot.page), slot.filled);
    slot.mask |= uint64_t{1} << slot.filled++;
  }
  const Lane& slots() const { return slots_; }
  /// The pages are the caller's now.
  void give_away() { slots_.clear(); }

 private:
  void turn_key(const std::byte* keys, int token, const PageSlot& to) {
    const PageShape& shape = store_.shape();
    read_key(shape.format, shape.key_dim, keys, token, key_.data());
    const PlaceRotations::View turn = rotations_.back(rotations_.offset(token), sin_.data());
    kernels_.rotate_pairs(key_.data(), turn.cos, turn.sin, rotations_.pairs());
    PageWrite write;  // of a key alone: without dimensions of a value
    write.format = shape.format;
    write.key_dim = shape.key_dim;
    write.rotary_dim = 2 * rotations_.pairs();
    write.page_keys = store_.keys(to.page);
    write.page_values = store_.values(to.page);
    write.first = to.filled;
    write.count = 1;
    write.keys = key_.data();
    write.turns = rotations_.offset(0).cos;
    kernels_.write_page(write);
  }

  PageStore& store_;
  const PlaceRotations& rotations_;
  const Kernels& kernels_;
  Lane slots_;
  std::vector<float> key_, sin_;
};

/// Where the visible tokens of a lane were read.
std::vector<int64_t> read_places(const Lane& lane, const PackedTokens& packed) {
  std::vector<int64_t> read;
  for (const PageSlot& slot : lane) {
    for (uint64_t left = slot.mask; left != 0; left &= left - 1)
      read.push_back(packed.read_at(slot.first + std::countr_zero(left)));
  }
  return read;
}

}  // namespace

LaneGaps gaps_of(const Lane& lane) {
  if (lane.empty()) return {};
  const int64_t span = lane.back().first + lane.back().filled - lane.front().first;
  return {span - count_visible(lane, {0, lane.size()}), count_visible(lane, middle_of(lane))};
}

bool Memory::pack(const Kernels& kernels, int layer, int head, const PlaceRotations& rotations) {
  Lane& lane = own_lane(layer, head);
  PackedTokens& packed = packed_[&lane - lanes_.data()];
  const LaneGaps gaps = gaps_of(lane);
  const int64_t shift = next_position_ - tokens_;
  const auto follows = [&](const PageSlot& slot) { return slot.place - slot.first == shift; };
  if (gaps.hidden == 0 || !std::ranges::all_of(lane, follows)) return false;
  const Middle middle = middle_of(lane);
  PageFiller filler(*store_, kernels, rotations, gaps.rewritten);
  for (size_t s = middle.begin; s < middle.end; ++s) {
    for (uint64_t left = lane[s].mask; left != 0; left &= left - 1)
      filler.add(lane[s].page, std::countr_zero(left));
  }
  std::vector<int64_t> read = read_places(lane, packed);
  Lane together(lane.begin(), lane.begin() + static_cast<int64_t>(middle.begin));
  together.insert(together.end(), filler.slots().begin(), filler.slots().end());
  together.insert(together.end(), lane.begin() + static_cast<int64_t>(middle.end), lane.end());
  int64_t index = tokens_ - static_cast<int64_t>(read.size());
  packed = {index, shift, std::move(read)};
  for (PageSlot& slot : together) {
    slot.first = index;
    slot.place = index + shift;
    index += slot.filled;
  }
  for (size_t s = middle.begin; s < middle.end; ++s) release(lane[s]);
  filler.give_away();
  lane = std::move(together);
  edits_[&lane - lanes_.data()].add(0);
  return true;
}

}  // namespace fathom
