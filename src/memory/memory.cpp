#include "memory/memory.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "base/error.h"

namespace fathom {
namespace {

void check_position(int64_t position) {
  if (position < 0 || position >= kPositionLimit)
    fail("positions must lie in [0, ", kPositionLimit, "), found ", position);
}

}  // namespace

Memory::Memory(std::shared_ptr<PageStore> store, int layers, int kv_heads, int page_tokens)
    : store_(std::move(store)),
      layers_(layers),
      kv_heads_(kv_heads),
      page_tokens_(page_tokens),
      lanes_(static_cast<size_t>(layers) * kv_heads),
      packed_(lanes_.size()),
      edits_(lanes_.size()) {}

Memory::Memory(Memory&& other) noexcept { *this = std::move(other); }

Memory& Memory::operator=(Memory&& other) noexcept {
  if (this == &other) return *this;
  release_all();
  store_ = std::move(other.store_);
  layers_ = other.layers_;
  kv_heads_ = other.kv_heads_;
  page_tokens_ = other.page_tokens_;
  lanes_ = std::exchange(other.lanes_, {});
  packed_ = std::exchange(other.packed_, {});
  edits_ = std::exchange(other.edits_, {});
  tokens_ = other.tokens_;
  next_position_ = other.next_position_;
  end_position_ = other.end_position_;
  states_ = std::move(other.states_);
  return *this;
}

Memory::~Memory() { release_all(); }

void Memory::release(const PageSlot& slot) noexcept {
  if (slot.page != kNoPage) store_->release(slot.page);
}

void Memory::release_all() noexcept {
  for (Lane& lane : lanes_) {
    for (const PageSlot& slot : lane) release(slot);
  }
  lanes_.clear();
}

Memory Memory::fork() const {
  // Nothing throws after the first retain: the copy's destructor releases every page in its page tables.
  Memory copy(store_, layers_, kv_heads_, page_tokens_);
  for (size_t i = 0; i < states_.size(); ++i) {
    if (states_[i]) copy.states_[i] = states_[i]->fork();
  }
  copy.packed_ = packed_;
  copy.edits_ = edits_;
  copy.tokens_ = tokens_;
  copy.next_position_ = next_position_;
  copy.end_position_ = end_position_;
  std::vector<Lane> lanes = lanes_;
  for (const Lane& lane : lanes) {
    for (const PageSlot& slot : lane) {
      if (slot.page != kNoPage) store_->retain(slot.page);
    }
  }
  copy.lanes_ = std::move(lanes);
  return copy;
}

void Memory::append(std::span<const int64_t> positions) {
  for (const int64_t position : positions) check_position(position);
  for (Lane& lane : lanes_) append(lane, positions);
  tokens_ += static_cast<int64_t>(positions.size());
  if (!positions.empty()) next_position_ = positions.back() + 1;
  for (const int64_t position : positions) end_position_ = std::max(end_position_, position + 1);
}

void Memory::append(Lane& lane, std::span<const int64_t> positions) {
  int64_t index = tokens_;
  for (size_t i = 0; i < positions.size(); ++i, ++index) {
    const bool fits = !lane.empty() && lane.back().filled < page_tokens_ &&
                      lane.back().place + lane.back().filled == positions[i] &&
                      lane.back().first + lane.back().filled == index;
    if (!fits) {
      lane.push_back({kNoPage, 0, index, positions[i], 0});  // first, so that no page is lost if it throws
      lane.back().page = store_->allocate();
    } else if (i == 0) {
      own_last(lane);
      store_->touch(lane.back().page);
    }
    PageSlot& slot = lane.back();
    slot.mask |= uint64_t{1} << slot.filled;
    ++slot.filled;
  }
}

void Memory::own_last(Lane& lane) {
  PageSlot& slot = lane.back();
  if (!store_->shared(slot.page)) return;
  const PageId copy = store_->allocate();
  std::memcpy(store_->keys(copy), store_->keys(slot.page), store_->shape().bytes());
  store_->release(slot.page);
  slot.page = copy;
}

void Memory::write(const Kernels& kernels, int layer, int head, int64_t rows, const float* keys, int64_t key_stride,
                   const float* values, int64_t value_stride, const PlaceRotations& rotations) {
  const PageShape& shape = store_->shape();
  const Lane& table = lane(layer, head);
  const int64_t begin = tokens_ - rows;
  PageWrite write;
  write.format = shape.format;
  write.key_dim = shape.key_dim;
  write.value_dim = shape.value_dim;
  write.rotary_dim = 2 * rotations.pairs();
  write.key_stride = key_stride;
  write.value_stride = value_stride;
  write.turns = rotations.offset(0).cos;
  size_t s = table.size();
  while (s > 0 && table[s - 1].first + table[s - 1].filled > begin) --s;
  for (int64_t done = 0; done < rows; ++s) {
    const PageSlot& slot = table[s];
    write.page_keys = store_->keys(slot.page);
    write.page_values = store_->values(slot.page);
    write.first = static_cast<int>(begin + done - slot.first);
    write.count = slot.filled - write.first;
    write.keys = keys + done * key_stride;
    write.values = values + done * value_stride;
    kernels.write_page(write);
    done += write.count;
  }
}

void Memory::rewind(int64_t n) {
  if (n < 0 || n > tokens_) fail("cannot rewind ", n, " tokens of ", tokens_);
  tokens_ -= n;
  for (size_t i = 0; i < lanes_.size(); ++i) truncate(i);
  for (const auto& state : states_) {
    if (state) state->rewind(tokens_);
  }
  refresh_end();
}

void Memory::truncate(size_t index) {
  Lane& lane = lanes_[index];
  PackedTokens& packed = packed_[index];
  const auto is_full = [](const PageSlot& slot) { return slot.filled == kPageTokens; };
  std::optional<size_t> edited;  // the first entry whose full page is removed, shortened or moved
  int64_t end = tokens_;         // of what stays, as it lies
  if (tokens_ < packed.end()) {
    packed.read.resize(std::ranges::lower_bound(packed.read, tokens_) - packed.read.begin());
    end = packed.end();
  }
  while (!lane.empty() && lane.back().first >= end) {
    if (is_full(lane.back())) edited = lane.size() - 1;
    release(lane.back());
    lane.pop_back();
  }
  if (end != tokens_) {
    edited = 0;
    packed.begin += tokens_ - end;
    for (PageSlot& slot : lane) slot.first += tokens_ - end, slot.place += tokens_ - end;
  }
  if (!lane.empty()) {
    PageSlot& last = lane.back();
    const int filled = static_cast<int>(std::min<int64_t>(last.filled, tokens_ - last.first));
    if (filled < last.filled && is_full(last)) edited = std::min(edited.value_or(lane.size()), lane.size() - 1);
    last.filled = filled;
    last.mask &= page_bits(0, filled);
  }
  if (edited) edits_[index].add(*edited);
  // what is written next needs a page again
  if (!lane.empty() && lane.back().page == kNoPage && !is_full(lane.back())) lane.back().page = store_->allocate();
}

void Memory::refresh_end() {
  end_position_ = next_position_ = 0;
  if (lanes_.empty() || tokens_ == 0) return;
  if (lanes_[0].empty()) {  // packed, and nothing of it is left
    end_position_ = next_position_ = tokens_ + packed_[0].shift;
    return;
  }
  next_position_ = lanes_[0].back().place + lanes_[0].back().filled;
  for (const PageSlot& slot : lanes_[0]) end_position_ = std::max(end_position_, slot.place + slot.filled);
}

void Memory::place(int64_t position) {
  check_position(position);
  if (lanes_.empty() || tokens_ == 0) return;
  const Lane& some = lanes_[0];
  const int64_t now = some.empty() ? packed_[0].shift : some.front().place - some.front().first;
  const int64_t shift = position - now;
  if (shift == 0) return;
  for (const PageSlot& slot : lanes_[0]) {
    check_position(slot.place + shift);
    check_position(slot.place + slot.filled - 1 + shift);
  }
  for (Lane& lane : lanes_) {
    for (PageSlot& slot : lane) slot.place += shift;
  }
  for (PackedTokens& packed : packed_) packed.shift += shift;
  for (LaneEdits& edits : edits_) edits.add(0);
  refresh_end();
}

void Memory::hide(int layer, int head, int64_t begin, int64_t end) {
  const auto hide_in = [&](Lane& table) {
    for (PageSlot& slot : table) slot.mask &= ~page_bits(begin - slot.first, end - slot.first);
  };
  if (layer >= 0) return hide_in(own_lane(layer, head));
  for (Lane& table : lanes_) hide_in(table);
}

void Memory::drop(int layer, int head, std::span<const char> keep) {
  for (PageSlot& slot : own_lane(layer, head)) {
    const auto end = std::min<int64_t>(slot.filled, std::ssize(keep) - slot.first);
    for (int64_t i = 0; i < end; ++i) {
      if (!keep[slot.first + i]) slot.mask &= ~(uint64_t{1} << i);
    }
    if (slot.mask != 0 || slot.filled < kPageTokens) continue;
    release(slot);
    slot.page = kNoPage;
  }
}

}  // namespace fathom
