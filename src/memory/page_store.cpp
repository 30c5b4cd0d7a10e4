#include "memory/page_store.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "base/error.h"
#include "base/slab.h"
#include "kernels/page_copy.h"

namespace fathom {

PageStore::PageStore(PageShape shape, std::shared_ptr<MemoryBudget> budget)
    : shape_(shape),
      values_offset_(shape.values_in_keys() ? 0 : shape.key_bytes()),
      budget_(std::move(budget)),
      pages_per_slab_(std::max<size_t>(1, kSlabBytes / shape.bytes())),
      slab_bytes_(round_up_to_huge_page(pages_per_slab_ * shape.bytes())),
      slabs_(std::make_unique<Slab[]>(kMaxSlabs)) {
  assert(!shape.values_in_keys() || shape.value_offset + shape.value_dim <= shape.key_dim);
}

PageStore::~PageStore() {
  for (size_t s = 0; s < slab_count_; ++s)
    if (!slabs_[s].mapping && slabs_[s].data) unmap_slab(slabs_[s].data, slab_bytes_);
}

/// Reserves `count` consecutive slab indices and returns the first one. Throws Error if there are none left.
size_t PageStore::claim_slabs(size_t count) {
  const auto fits =
      std::ranges::find_if(free_extents_, [&](const Extent& extent) { return extent.slabs >= count; });
  if (fits != free_extents_.end()) {
    const size_t first = fits->first_slab + (fits->slabs -= count);
    if (fits->slabs == 0) free_extents_.erase(fits);
    return first;
  }
  if (slab_count_ + count > kMaxSlabs)
    fail("the page store is full: it has at most ", kMaxSlabs, " slabs of ", slab_bytes_, " bytes");
  return slab_count_;
}

/// Adds a slab of free pages. All allocations happen before any state changes.
void PageStore::add_slab() {
  free_.reserve((memory_slabs_ + 1) * pages_per_slab_);
  auto pages = std::make_unique<PageState[]>(pages_per_slab_);
  std::byte* data = map_slab(slab_bytes_);
  if (!data) {
    throw Error(concat("out of memory: cannot allocate ", slab_bytes_, " more bytes for pages (", bytes_in_use(),
                       " in use)"),
                Error::Kind::kOutOfMemory);
  }
  size_t slab = 0;
  try {
    slab = claim_slabs(1);
  } catch (...) {
    unmap_slab(data, slab_bytes_);
    throw;
  }
  for (size_t i = 0; i < pages_per_slab_; ++i) pages[i].version = mapping_version_ + 1;
  slabs_[slab].data = data;
  slabs_[slab].pages = std::move(pages);
  for (size_t i = pages_per_slab_; i-- > 0;) free_.push_back(static_cast<PageId>(slab * pages_per_slab_ + i));
  slab_count_ = std::max(slab_count_, slab + 1);
  ++memory_slabs_;
}

PageRef PageStore::allocate() {
  BudgetCharge charge(budget_, shape_.bytes());  // before the lock: the reclaimer may release pages of this store
  const std::lock_guard lock(mutex_);
  if (free_.empty()) add_slab();
  const PageId page = free_.back();
  free_.pop_back();
  std::memset(keys(page), 0, shape_.bytes());  // stale values (NaN included) must not reach masked sums
  mark_written(page);
  at(page).owners.store(1, std::memory_order_release);
  ++in_use_;
  charge.detach();
  return {*this, page};
}

PageId PageStore::map(std::span<const std::byte> pages, size_t count, std::shared_ptr<const void> mapping,
                      MappedReads* reads) {
  if (count == 0 || pages.size() / shape_.bytes() < count)
    fail("mapped pages: expected ", count, " pages of ", shape_.bytes(), " bytes, found ", pages.size(), " bytes");
  if (reinterpret_cast<uintptr_t>(pages.data()) % 64 != 0) fail("mapped pages must be aligned to 64 bytes");
  const size_t slabs = (count + pages_per_slab_ - 1) / pages_per_slab_;
  const std::lock_guard lock(mutex_);
  free_extents_.reserve(free_extents_.size() + mapped_extents_ + 1);  // so that release() allocates nothing
  auto extent = std::make_shared<Mapping>();
  extent->memory = std::move(mapping);
  extent->live = count;
  extent->slabs = slabs;
  std::vector<std::unique_ptr<PageState[]>> states(slabs);
  for (auto& state : states) state = std::make_unique<PageState[]>(pages_per_slab_);
  const size_t first = claim_slabs(slabs);
  extent->first_slab = first;
  ++mapping_version_;
  for (size_t s = 0; s < slabs; ++s) {
    for (size_t i = 0; i < std::min(pages_per_slab_, count - s * pages_per_slab_); ++i) {
      states[s][i].owners = 1;
      states[s][i].version = mapping_version_;
    }
    // shared() returns true for mapped pages, so they are never written to
    auto* data = const_cast<std::byte*>(pages.data()) + s * pages_per_slab_ * shape_.bytes();
    slabs_[first + s] = {data, std::move(states[s]), extent, reads, s * pages_per_slab_};
  }
  slab_count_ = std::max(slab_count_, first + slabs);
  ++mapped_extents_;
  return static_cast<PageId>(first * pages_per_slab_);
}

void PageStore::retain(PageId page) noexcept { at(page).owners.fetch_add(1, std::memory_order_relaxed); }

void PageStore::release(PageId page) noexcept {
  if (at(page).owners.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  const Slab& slab = slab_of(page);
  if (slab.mapping) {
    if (slab.mapping->live.fetch_sub(1, std::memory_order_acq_rel) == 1) free_mapped(slab);
    return;
  }
  const std::lock_guard lock(mutex_);
  free_.push_back(page);
  --in_use_;
  if (budget_) budget_->release(shape_.bytes());
}

float PageStore::value(PageId page, int token, int d) const {
  if (shape_.values_in_keys())
    return page_key(shape_.format, shape_.key_dim, keys(page), token, shape_.value_offset + d);
  return page_value(shape_.format, shape_.value_dim, values(page), token, d);
}

void PageStore::copy_value(PageId from, int from_token, PageId to, int to_token) {
  if (shape_.values_in_keys()) return;
  fathom::copy_value(shape_.format, shape_.value_dim, values(from), from_token, values(to), to_token);
}

/// Frees the slab indices of an extent whose pages have no owners left, and its mapping.
void PageStore::free_mapped(const Slab& slab) noexcept {
  const std::shared_ptr<Mapping> mapping = slab.mapping;  // destroyed after the lock is released
  const std::lock_guard lock(mutex_);
  const Extent freed{mapping->first_slab, mapping->slabs};
  for (size_t s = freed.first_slab; s < freed.first_slab + freed.slabs; ++s) slabs_[s] = {};
  --mapped_extents_;
  auto at = std::ranges::lower_bound(free_extents_, freed.first_slab, {}, &Extent::first_slab);
  at = free_extents_.insert(at, freed);  // map() reserved the capacity
  const auto join = [&](auto left) {
    if (left->first_slab + left->slabs != left[1].first_slab) return;
    left->slabs += left[1].slabs;
    free_extents_.erase(left + 1);
  };
  if (at + 1 != free_extents_.end()) join(at);
  if (at != free_extents_.begin()) join(at - 1);
}

}  // namespace fathom
