#pragma once

#include <cstddef>

namespace fathom {

/// Slabs are whole large pages of the machine: who walks through all of them misses the translation buffer less.
inline constexpr size_t kHugePageBytes = size_t{2} << 20;

inline size_t round_up_to_huge_page(size_t bytes) {
  return (bytes + kHugePageBytes - 1) / kHugePageBytes * kHugePageBytes;
}

/// Zeroed memory of a multiple of kHugePageBytes that starts at one; null when there is none.
std::byte* map_slab(size_t bytes);
void unmap_slab(std::byte* slab, size_t bytes);

/// Asks for large pages where `data` lies, at a multiple of kHugePageBytes, before it is written to. Without effect
/// where the system has none to give.
void prefer_large_pages(void* data, size_t bytes);

}  // namespace fathom
