#pragma once

#include <cstddef>

namespace fathom {

/// Sizes and addresses of slabs are multiples of this, the size of a huge page (2 MiB). Huge pages reduce TLB
/// misses when all slabs are scanned.
inline constexpr size_t kHugePageBytes = size_t{2} << 20;

/// Returns `bytes` rounded up to a multiple of kHugePageBytes.
inline size_t round_up_to_huge_page(size_t bytes) {
  return (bytes + kHugePageBytes - 1) / kHugePageBytes * kHugePageBytes;
}

/// Returns zeroed memory aligned to kHugePageBytes, or null if the system has none. bytes: a multiple of
/// kHugePageBytes. Release it with unmap_slab.
std::byte* map_slab(size_t bytes);
/// Releases memory of map_slab. bytes: as in map_slab.
void unmap_slab(std::byte* slab, size_t bytes);

/// Advises the system to back memory with huge pages. Call it before the first write. data: aligned to
/// kHugePageBytes. Has no effect where huge pages are not available.
void advise_huge_pages(void* data, size_t bytes);

}  // namespace fathom
