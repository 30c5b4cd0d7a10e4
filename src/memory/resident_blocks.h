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

  /// Marks the blocks of these bytes as used; call it before reading them. Returns whether all of them were
  /// resident.
  bool touch(const std::byte* data, size_t bytes) {
    bool resident = true;
    for (size_t block = block_of(data); block <= block_of(data + bytes - 1); ++block)
      if (states_[block].load(std::memory_order_relaxed) != kUsed) resident &= mark_used(block);
    return resident;
  }
  /// Reads the blocks of these bytes that are not resident, and marks them as used. Returns whether there were any.
  bool load(const std::byte* data, size_t bytes);

  /// Returns blocks of these bytes to the system that are not resident but may be mapped, because they were read
  /// long after they were marked as used, or together with other blocks.
  void release_absent(const std::byte* data, size_t bytes);

  /// Bytes of the blocks that are resident.
  size_t resident() const { return resident_.load(std::memory_order_relaxed) * kBlock; }
  /// Returns whether all blocks are resident.
  bool all_resident() const { return resident_.load(std::memory_order_relaxed) == states_.size(); }
  /// Bytes that may be resident.
  size_t limit() const { return limit_(); }

 private:
  enum State : uint8_t { kAbsent, kUnused, kUsed };  // unused since the hand of the clock last passed
  size_t block_of(const std::byte* data) const { return static_cast<size_t>(data - base_) / kBlock; }
  bool absent(size_t block) const { return states_[block].load(std::memory_order_relaxed) == kAbsent; }
  bool mark_used(size_t block);
  void release_some(size_t limit);

  int advise(size_t first, size_t last, int advice) const;

  // base_: the address of block 0, a multiple of kBlock, as are the ranges that the system maps after a page fault.
  // begin_, end_: of the mapping.
  const std::byte *base_, *begin_, *end_;
  std::function<size_t()> limit_;
  std::vector<std::atomic<uint8_t>> states_;
  std::atomic<size_t> resident_{0};
  std::mutex mutex_;
  size_t hand_ = 0;
};

}  // namespace fathom
