#include "memory/page_notes.h"

namespace fathom {

PageNotes::PageNotes(std::shared_ptr<const PageStore> store, size_t bytes)
    : store_(std::move(store)),
      bytes_(bytes),
      slabs_(std::make_unique<std::atomic<Slab*>[]>(PageStore::kMaxSlabs)) {}

PageNotes::~PageNotes() {
  for (size_t i = 0; i < PageStore::kMaxSlabs; ++i) delete slabs_[i].load();
}

PageNotes::Slab& PageNotes::slab_of(PageId page) {
  std::atomic<Slab*>& place = slabs_[page / store_->pages_per_slab()];
  if (Slab* slab = place.load(std::memory_order_acquire)) return *slab;
  const std::lock_guard lock(slabs_mutex_);
  if (Slab* slab = place.load(std::memory_order_relaxed)) return *slab;
  const size_t pages = store_->pages_per_slab();
  auto slab = std::make_unique<Slab>();
  slab->bytes = std::make_unique<std::byte[]>(pages * bytes_);
  slab->versions = std::make_unique<std::atomic<uint32_t>[]>(pages);
  place.store(slab.get(), std::memory_order_release);
  return *slab.release();
}

}  // namespace fathom
