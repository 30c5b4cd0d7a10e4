#include "tokens/piece_index.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "base/error.h"

namespace fathom {
namespace {

uint64_t mix(uint64_t value) {
  value *= 0x9e3779b97f4a7c15;
  return value ^ value >> 32;
}

}  // namespace

uint64_t hash_text(std::string_view text) {
  uint64_t hash = text.size();
  size_t at = 0;
  for (; at + 8 <= text.size(); at += 8) {
    uint64_t word;
    std::memcpy(&word, text.data() + at, 8);
    hash = mix(hash ^ word);
  }
  uint64_t rest = 0;
  std::memcpy(&rest, text.data() + at, text.size() - at);
  return mix(mix(hash ^ rest));
}

size_t PieceIndex::locate(std::string_view text, uint64_t hash) const {
  const size_t mask = slots_.size() - 1;
  const uint32_t tag = hash >> 32;
  size_t at = hash & mask;
  for (; slots_[at].id != kNoToken; at = (at + 1) & mask) {
    const Slot& slot = slots_[at];
    if (slot.tag == tag && std::string_view(texts_).substr(slot.begin, slot.bytes) == text) break;
  }
  return at;
}

void PieceIndex::add(std::string_view text, int32_t id) {
  if (2 * (count_ + 1) > slots_.size()) grow();
  const uint64_t hash = hash_text(text);
  Slot& slot = slots_[locate(text, hash)];
  if (slot.id != kNoToken) return;
  if (texts_.size() + text.size() > std::numeric_limits<uint32_t>::max())
    fail("the pieces of the vocabulary exceed 4 GiB of text");
  slot = {static_cast<uint32_t>(hash >> 32), id, static_cast<uint32_t>(texts_.size()),
          static_cast<uint32_t>(text.size())};
  texts_ += text;
  ++count_;
  max_bytes_ = std::max(max_bytes_, text.size());
}

int32_t PieceIndex::find(std::string_view text) const {
  if (text.size() > max_bytes_ || slots_.empty()) return kNoToken;
  return slots_[locate(text, hash_text(text))].id;
}

void PieceIndex::grow() {
  std::vector<Slot> old(std::max<size_t>(64, 2 * slots_.size()));
  old.swap(slots_);
  for (const Slot& slot : old) {
    if (slot.id == kNoToken) continue;
    const std::string_view text = std::string_view(texts_).substr(slot.begin, slot.bytes);
    slots_[locate(text, hash_text(text))] = slot;
  }
}

}  // namespace fathom
