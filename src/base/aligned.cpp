#include "base/aligned.h"

#include <new>

#include "base/slab.h"

namespace fathom {

void* allocate_aligned(size_t bytes) {
  if (bytes == 0) return nullptr;
  const bool large = bytes >= 2 * kHugePageBytes;  // else rounding up would waste too much
  const size_t unit = large ? kHugePageBytes : kAlignment, whole = (bytes + unit - 1) / unit * unit;
  void* data = std::aligned_alloc(unit, whole);
  if (!data) throw std::bad_alloc();
  if (large) prefer_large_pages(data, whole);
  return data;
}

}  // namespace fathom
