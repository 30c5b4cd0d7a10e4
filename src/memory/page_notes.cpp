#include "memory/page_notes.h"

#include <algorithm>

#include "base/error.h"
#include "base/slab.h"

namespace fathom {

PageNotes::PageNotes(std::shared_ptr<const PageStore> store, size_t bytes)
    : store_(std::move(store)),
      stride_((kHeader + bytes + kAlignment - 1) / kAlignment * kAlignment),
      notes_per_slab_(std::max<size_t>(1, kSlabUnit / stride_)),
      slab_bytes_(whole_slab(notes_per_slab_ * stride_)),
      slabs_(std::make_unique<std::atomic<std::byte*>[]>(slab_count())) {}

PageNotes::~PageNotes() {
  for (size_t i = 0; i < slab_count(); ++i)
    if (std::byte* slab = slabs_[i].load()) unmap_slab(slab, slab_bytes_);
}

std::byte* PageNotes::new_slab(size_t index) {
  const std::lock_guard lock(slabs_mutex_);
  if (std::byte* slab = slabs_[index].load(std::memory_order_relaxed)) return slab;
  std::byte* slab = map_slab(slab_bytes_);
  if (!slab) fail("out of memory: cannot get ", slab_bytes_, " more bytes for notes of pages");
  slabs_[index].store(slab, std::memory_order_release);
  return slab;
}

}  // namespace fathom
