#include "base/slab.h"

#include <sys/mman.h>

#include <cstdint>

namespace fathom {

std::byte* map_slab(size_t bytes) {
  void* data = ::mmap(nullptr, bytes + kHugePageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return nullptr;
  auto* begin = static_cast<std::byte*>(data);
  const size_t before = (kHugePageBytes - reinterpret_cast<uintptr_t>(begin) % kHugePageBytes) % kHugePageBytes;
  if (before > 0) ::munmap(begin, before);
  begin += before;
  ::munmap(begin + bytes, kHugePageBytes - before);
  advise_huge_pages(begin, bytes);
  return begin;
}

void unmap_slab(std::byte* slab, size_t bytes) { ::munmap(slab, bytes); }

void advise_huge_pages(void* data, size_t bytes) {
#ifdef MADV_HUGEPAGE
  ::madvise(data, bytes, MADV_HUGEPAGE);
#else
  static_cast<void>(data), static_cast<void>(bytes);
#endif
}

}  // namespace fathom
