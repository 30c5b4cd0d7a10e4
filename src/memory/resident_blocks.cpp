#include "memory/resident_blocks.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

namespace fathom {
namespace {

/// Blocks that the system may map when one of them is read, if it holds the file in large pieces: 2 MiB.
constexpr size_t kMappedTogether = 32;

}  // namespace

ResidentBlocks::ResidentBlocks(std::span<const std::byte> mapping, std::function<size_t()> limit)
    : limit_(std::move(limit)) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto address = reinterpret_cast<uintptr_t>(mapping.data());
  begin_ = mapping.data() - address % page;
  end_ = mapping.data() + mapping.size();
  base_ = mapping.data() - address % kBlock;
  states_ = std::vector<std::atomic<uint8_t>>((static_cast<size_t>(end_ - base_) + kBlock - 1) / kBlock);
}

/// Advises the system about blocks [first, last].
int ResidentBlocks::advise(size_t first, size_t last, int advice) const {
  const std::byte* begin = std::max(begin_, base_ + first * kBlock);
  const std::byte* end = std::min(end_, base_ + (last + 1) * kBlock);
  return ::madvise(const_cast<std::byte*>(begin), static_cast<size_t>(end - begin), advice);
}

/// Returns whether the block was resident.
bool ResidentBlocks::mark_used(size_t block) {
  if (states_[block].exchange(kUsed, std::memory_order_relaxed) != kAbsent) return true;
  const size_t resident = (resident_.fetch_add(1, std::memory_order_relaxed) + 1) * kBlock;
  if (const size_t limit = limit_(); resident > limit) release_some(limit);
  return false;
}

bool ResidentBlocks::load(const std::byte* data, size_t bytes) {
  bool loaded = false;
  for (size_t block = block_of(data); block <= block_of(data + bytes - 1); ++block) {
    if (states_[block].load(std::memory_order_relaxed) != kAbsent || mark_used(block)) continue;
    loaded = true;
    // errors do not matter: the block is read when it is used
    if (advise(block, block, MADV_POPULATE_READ) != 0) advise(block, block, MADV_WILLNEED);
  }
  return loaded;
}

void ResidentBlocks::release_absent(const std::byte* data, size_t bytes) {
  const size_t end = block_of(data + bytes - 1) + 1;
  for (size_t block = block_of(data); block < end; ++block) {
    const size_t first = block;
    while (block < end && absent(block)) ++block;
    if (block > first) advise(first, block - 1, MADV_DONTNEED);
  }
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
    size_t first = block, last = block;
    while (first % kMappedTogether != 0 && absent(first - 1)) --first;
    while ((last + 1) % kMappedTogether != 0 && last + 1 < states_.size() && absent(last + 1)) ++last;
    advise(first, last, MADV_DONTNEED);
  }
}

}  // namespace fathom
