#pragma once

#include <cstddef>

namespace fathom {

/// Slabs are whole large pages of the machine: who walks through all of them misses the translation buffer less.
inline constexpr size_t kSlabUnit = size_t{2} << 20;

inline size_t whole_slab(size_t bytes) { return (bytes + kSlabUnit - 1) / kSlabUnit * kSlabUnit; }

/// Zeroed memory of a multiple of kSlabUnit that starts at one; null when there is none.
std::byte* map_slab(size_t bytes);
void unmap_slab(std::byte* slab, size_t bytes);

/// Asks for large pages where `data` lies, at a multiple of kSlabUnit, before it is written to. Without effect
/// where the system has none to give.
void prefer_large_pages(void* data, size_t bytes);

}  // namespace fathom
