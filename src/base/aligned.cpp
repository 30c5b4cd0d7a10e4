#include "base/aligned.h"

#include <new>

#include "base/slab.h"

namespace fathom {

void* allocate_aligned(size_t bytes) {
  if (bytes == 0) return nullptr;
  const bool large = bytes >= 2 * kHugePageBytes;  // rounding up smaller buffers would waste too much
  const size_t unit = large ? kHugePageBytes : kAlignment, whole = (bytes + unit - 1) / unit * unit;
  void* data = std::aligned_alloc(unit, whole);
  if (!data) throw std::bad_alloc();
  if (large) advise_huge_pages(data, whole);
  return data;
}

}  // namespace fathom
