#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <span>
#include <vector>

namespace fathom {

/// Bounds the memory that the pages of a read-only file mapping occupy. The mapping is divided into blocks of
/// kBlock bytes, and blocks that were not used recently are returned to the system, which reads them from the file
/// again if they are needed (the clock algorithm: least recently used, approximately). Returning a block that
/// another thread reads is harmless. Thread-safe.
class ResidentBlocks {
 public:
  static constexpr size_t kBlock = size_t{64} << 10;  // as much as the system maps at once after a page fault

  /// mapping: of a file, aligned to the system's pages. limit: returns the bytes that may be resident.
  ResidentBlocks(std::span<const std::byte> mapping, std::function<size_t()> limit);

  /// Marks the blocks of these bytes as used; call it before reading them.
  void touch(const std::byte* data, size_t bytes) {
    const size_t first = static_cast<size_t>(data - base_) / kBlock;
    const size_t last = (static_cast<size_t>(data - base_) + bytes - 1) / kBlock;
    for (size_t block = first; block <= last; ++block)
      if (states_[block].load(std::memory_order_relaxed) != kUsed) mark_used(block);
  }

  /// Bytes of the blocks that are resident.
  size_t resident() const { return resident_.load(std::memory_order_relaxed) * kBlock; }
  /// The number of times that a block was needed and not resident.
  int64_t misses() const { return misses_.load(std::memory_order_relaxed); }

 private:
  enum State : uint8_t { kAbsent, kUnused, kUsed };  // unused since the hand of the clock last passed
  void mark_used(size_t block);
  void release_some(size_t limit);

  const std::byte* base_;
  size_t bytes_;
  std::function<size_t()> limit_;
  std::vector<std::atomic<uint8_t>> states_;
  std::atomic<size_t> resident_{0};
  std::atomic<int64_t> misses_{0};
  std::mutex mutex_;
  size_t hand_ = 0;
};

}  // namespace fathom
