#include "memory/resident_blocks.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

namespace fathom {

ResidentBlocks::ResidentBlocks(std::span<const std::byte> mapping, std::function<size_t()> limit)
    : bytes_(mapping.size()), limit_(std::move(limit)) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto address = reinterpret_cast<uintptr_t>(mapping.data());
  base_ = mapping.data() - address % page;
  bytes_ += address % page;
  states_ = std::vector<std::atomic<uint8_t>>((bytes_ + kBlock - 1) / kBlock);
}

void ResidentBlocks::mark_used(size_t block) {
  if (states_[block].exchange(kUsed, std::memory_order_relaxed) != kAbsent) return;
  misses_.fetch_add(1, std::memory_order_relaxed);
  const size_t resident = (resident_.fetch_add(1, std::memory_order_relaxed) + 1) * kBlock;
  if (const size_t limit = limit_(); resident > limit) release_some(limit);
}

/// Moves the hand of the clock until a sixteenth of the limit is free.
void ResidentBlocks::release_some(size_t limit) {
  const std::lock_guard lock(mutex_);  // the others wait, so that the limit holds
  if (resident_.load(std::memory_order_relaxed) * kBlock <= limit) return;
  const size_t kept = std::max<size_t>(1, (limit - limit / 16) / kBlock);
  for (size_t passed = 0; passed < 2 * states_.size() && resident_.load(std::memory_order_relaxed) > kept;
       ++passed) {
    const size_t block = hand_;
    hand_ = (hand_ + 1) % states_.size();
    uint8_t state = kUsed;
    if (states_[block].compare_exchange_strong(state, kUnused, std::memory_order_relaxed)) continue;
    state = kUnused;
    if (!states_[block].compare_exchange_strong(state, kAbsent, std::memory_order_relaxed)) continue;
    resident_.fetch_sub(1, std::memory_order_relaxed);
    const size_t begin = block * kBlock;
    ::madvise(const_cast<std::byte*>(base_) + begin, std::min(kBlock, bytes_ - begin), MADV_DONTNEED);
  }
}

}  // namespace fathom
