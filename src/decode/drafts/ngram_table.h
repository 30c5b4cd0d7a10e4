#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace fathom {

/// The latest occurrence of each n-gram of a text that grows. Exact: n-grams are compared, not only their hashes.
/// O(n) per operation; 8 to 16 bytes per distinct n-gram. The text is owned by the caller.
class NgramTable {
 public:
  explicit NgramTable(int n) : n_(static_cast<size_t>(n)) {}
  size_t n() const { return n_; }

  struct Occurrence {
    size_t end = 0;        // index after the last token of the latest occurrence; 0: the n-gram does not occur
    bool several = false;  // whether it occurs more than once
  };

  /// Adds the n-gram text[end − n, end). Ends must ascend and be below 2^31.
  void add(std::span<const int32_t> text, size_t end) {
    if (end < n_ || end >= size_t{1} << 31) return;
    if (2 * (used_ + 1) > slots_.size()) grow(text);
    uint32_t& slot = find_slot(text, text.subspan(end - n_, n_));
    if (slot == 0) ++used_;
    slot = static_cast<uint32_t>(end << 1) | (slot != 0 ? 1u : 0u);
  }

  /// gram: [n]
  Occurrence find(std::span<const int32_t> text, std::span<const int32_t> gram) const {
    if (slots_.empty()) return {};
    const uint32_t slot = const_cast<NgramTable*>(this)->find_slot(text, gram);
    return {slot >> 1, (slot & 1) != 0};
  }

  void clear() {
    slots_.clear();
    used_ = 0;
  }

 private:
  static uint64_t hash(std::span<const int32_t> gram) {
    uint64_t h = 0;
    for (const int32_t token : gram) {
      h = (h ^ static_cast<uint32_t>(token)) * 0x9e3779b97f4a7c15u;
      h ^= h >> 29;
    }
    return h;
  }
  /// Returns the slot that holds an equal n-gram, or the empty slot for it.
  uint32_t& find_slot(std::span<const int32_t> text, std::span<const int32_t> gram) {
    for (size_t i = hash(gram) & (slots_.size() - 1);; i = (i + 1) & (slots_.size() - 1)) {
      uint32_t& slot = slots_[i];
      if (slot == 0 || std::ranges::equal(text.subspan((slot >> 1) - n_, n_), gram)) return slot;
    }
  }
  void grow(std::span<const int32_t> text) {
    std::vector<uint32_t> old(std::max<size_t>(64, 2 * slots_.size()));
    old.swap(slots_);
    for (const uint32_t slot : old)
      if (slot != 0) find_slot(text, text.subspan((slot >> 1) - n_, n_)) = slot;
  }

  size_t n_, used_ = 0;
  std::vector<uint32_t> slots_;  // 2 · end + several; 0: empty. Size: a power of two
};

}  // namespace fathom
