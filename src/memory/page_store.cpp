#include "memory/page_store.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/slab.h"

namespace fathom {

PageStore::PageStore(PageShape shape)
    : shape_(shape),
      pages_per_slab_(std::max<size_t>(1, kSlabBytes / shape.bytes())),
      slab_bytes_(whole_slab(pages_per_slab_ * shape.bytes())),
      slabs_(std::make_unique<Slab[]>(kMaxSlabs)) {}

PageStore::~PageStore() {
  for (size_t s = 0; s < slab_count_; ++s) unmap_slab(slabs_[s].data, slab_bytes_);
}

/// Adds a slab of free pages. Memory that may be missing is requested before anything changes.
void PageStore::add_slab() {
  if (slab_count_ == kMaxSlabs) fail("the page memory is full: ", slab_count_ * slab_bytes_, " bytes in use");
  free_.reserve((slab_count_ + 1) * pages_per_slab_);
  auto pages = std::make_unique<PageState[]>(pages_per_slab_);
  std::byte* data = map_slab(slab_bytes_);
  if (!data) fail("out of memory: cannot get ", slab_bytes_, " more bytes for pages (", bytes_in_use(), " in use)");
  slabs_[slab_count_] = {data, std::move(pages)};
  for (size_t i = pages_per_slab_; i-- > 0;)
    free_.push_back(static_cast<PageId>(slab_count_ * pages_per_slab_ + i));
  ++slab_count_;
}

PageId PageStore::allocate() {
  const std::lock_guard lock(mutex_);
  if (free_.empty()) add_slab();
  const PageId page = free_.back();
  free_.pop_back();
  std::memset(keys(page), 0, shape_.bytes());  // stale numbers (NaN included) must not reach masked sums
  touch(page);
  at(page).owners.store(1, std::memory_order_release);
  ++in_use_;
  return page;
}

void PageStore::retain(PageId page) noexcept { at(page).owners.fetch_add(1, std::memory_order_relaxed); }

void PageStore::release(PageId page) noexcept {
  if (at(page).owners.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  const std::lock_guard lock(mutex_);
  free_.push_back(page);
  --in_use_;
}

}  // namespace fathom
