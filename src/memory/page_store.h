#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include "kernels/kernels.h"
#include "memory/memory_budget.h"

namespace fathom {

using PageId = uint32_t;
inline constexpr PageId kNoPage = ~PageId{0};

/// The contents of a page: keys and values of 64 consecutive tokens of one layer and one key/value head. PageFormat
/// documents the memory layouts.
struct PageShape {
  PageFormat format = PageFormat::kBF16;
  int key_dim = 0;  // even
  int value_dim = 0;
  // -1: values are stored separately. Otherwise pages hold only keys, and the value of a token is dimensions
  // [value_offset, value_offset + value_dim) of its key, after the rotary dimensions (latent attention:
  // "DeepSeek-V2", 2024).
  int value_offset = -1;

  bool values_in_keys() const { return value_offset >= 0; }
  size_t key_bytes() const { return page_key_bytes(format, key_dim); }
  size_t value_bytes() const { return values_in_keys() ? 0 : page_value_bytes(format, value_dim); }
  size_t bytes() const { return key_bytes() + value_bytes(); }
  bool operator==(const PageShape&) const = default;
};

class PageStore;

/// Is notified before pages of a mapping are read, to check them or to bound the memory that they occupy.
/// Thread-safe.
class MappedReads {
 public:
  virtual ~MappedReads() = default;
  /// page: index in the mapping. Called at least once before each use of the page by a pass. Throws Error if the
  /// page must not be used.
  virtual void before_read(size_t page) = 0;
};

/// Owns one reference to a page and releases it on destruction. Movable.
class PageRef {
 public:
  PageRef() = default;
  /// Takes over a reference that was already counted.
  PageRef(PageStore& store, PageId page) : store_(&store), page_(page) {}
  PageRef(PageRef&& other) noexcept : store_(other.store_), page_(std::exchange(other.page_, kNoPage)) {}
  PageRef& operator=(PageRef&& other) noexcept {
    std::swap(store_, other.store_);
    std::swap(page_, other.page_);
    return *this;
  }
  ~PageRef();

  PageId get() const { return page_; }
  /// Reference count of the page, this reference included.
  uint32_t owners() const;
  /// Returns the page and transfers the reference to the caller, which must release it.
  PageId detach() { return std::exchange(page_, kNoPage); }

 private:
  PageStore* store_ = nullptr;
  PageId page_ = kNoPage;
};

/// Reference-counted pages of one shape, shared by sequences and their forks. Pages are stored in slabs, which the
/// store allocates, or in read-only extents, which the caller maps. Thread-safe.
class PageStore {
 public:
  /// budget: charged for pages in slabs; null: no limit.
  explicit PageStore(PageShape shape, std::shared_ptr<MemoryBudget> budget = nullptr);
  ~PageStore();
  PageStore(const PageStore&) = delete;

  const PageShape& shape() const { return shape_; }

  /// Returns a zeroed page with one owner. Throws Error (out of memory) or std::bad_alloc, changing nothing, when
  /// memory is exhausted.
  PageRef allocate();
  /// Adds an extent of `count` read-only pages that are stored at `pages`, shape().bytes() each, aligned to 64
  /// bytes. Returns the id of the first; ids are consecutive, and each page has one owner. Mapped pages count as
  /// shared, so they are copied before a write, and they are not charged to the budget. `mapping` is kept until the
  /// last of these pages is released. reads: notified before each read of a page, and kept alive by `mapping`;
  /// null: nobody. Throws Error for too few bytes, wrong alignment, or when the store has no page ids left.
  PageId map(std::span<const std::byte> pages, size_t count, std::shared_ptr<const void> mapping,
             MappedReads* reads = nullptr);
  /// Adds an owner.
  void retain(PageId page) noexcept;
  /// Removes an owner and frees the page if it was the last one. Allocates no memory.
  void release(PageId page) noexcept;
  /// Returns a number, never 0, that changes whenever the contents of the page may have changed.
  uint32_t version(PageId page) const { return at(page).version.load(std::memory_order_acquire); }
  /// Changes version(page). Call it before writing into the page.
  void mark_written(PageId page) { at(page).version.fetch_add(1, std::memory_order_release); }
  /// Returns whether the page must be copied before a write: it has several owners or is mapped.
  bool shared(PageId page) const {
    return at(page).owners.load(std::memory_order_acquire) > 1 || slab_of(page).mapping != nullptr;
  }
  uint32_t owners(PageId page) const { return at(page).owners.load(std::memory_order_acquire); }

  /// Start of the page's keys. Throws what MappedReads::before_read throws.
  std::byte* keys(PageId page) { return const_cast<std::byte*>(std::as_const(*this).keys(page)); }
  const std::byte* keys(PageId page) const {
    const Slab& slab = slab_of(page);
    const size_t index = page % pages_per_slab_;
    if (slab.reads) slab.reads->before_read(slab.first_mapped + index);
    return slab.data + index * shape_.bytes();
  }
  /// Start of the page's values; equals keys(page) if values are part of the keys.
  std::byte* values(PageId page) { return keys(page) + values_offset_; }
  const std::byte* values(PageId page) const { return keys(page) + values_offset_; }
  /// Returns dimension d of the value of one token. Slow.
  float value(PageId page, int token, int d) const;
  /// Copies the value of one token to another page without changing its bits. Does nothing if values are part of
  /// the keys.
  void copy_value(PageId from, int from_token, PageId to, int to_token);

  /// Bytes of the pages in slabs that are in use; mapped pages are not counted.
  size_t bytes_in_use() const { return in_use_.load() * shape_.bytes(); }

  /// Upper bound of page ids, exclusive.
  size_t max_pages() const { return kMaxSlabs * pages_per_slab_; }

 private:
  static constexpr size_t kMaxSlabs = 1 << 16;  // 256 GiB of pages
  // large enough that the cost of mapping is negligible, small enough to waste little memory
  static constexpr size_t kSlabBytes = size_t{4} << 20;

  struct PageState {
    std::atomic<uint32_t> owners{0}, version{1};
  };
  struct Mapping {  // an extent of read-only pages
    std::shared_ptr<const void> memory;
    std::atomic<size_t> live;  // pages with owners
    size_t first_slab, slabs;
  };
  struct Slab {
    std::byte* data = nullptr;
    std::unique_ptr<PageState[]> pages;  // [pages_per_slab_]
    std::shared_ptr<Mapping> mapping;    // null: allocated by the store
    MappedReads* reads = nullptr;
    size_t first_mapped = 0;  // index in the mapping of the slab's first page
  };
  struct Extent {  // consecutive slabs
    size_t first_slab, slabs;
  };
  void add_slab();
  size_t claim_slabs(size_t count);
  void free_mapped(const Slab& slab) noexcept;
  const Slab& slab_of(PageId page) const { return slabs_[page / pages_per_slab_]; }
  PageState& at(PageId page) const { return slabs_[page / pages_per_slab_].pages[page % pages_per_slab_]; }

  PageShape shape_;
  size_t values_offset_;  // bytes from the start of a page to its values
  std::shared_ptr<MemoryBudget> budget_;
  size_t pages_per_slab_;
  size_t slab_bytes_;
  std::unique_ptr<Slab[]> slabs_;  // [kMaxSlabs], never reallocated: readers need no lock
  std::mutex mutex_;
  size_t slab_count_ = 0;
  size_t memory_slabs_ = 0;  // allocated by the store
  size_t mapped_extents_ = 0;
  // Initial version of the pages of the latest mapping. It grows with each mapping, because page ids are reused.
  uint32_t mapping_version_ = 0;
  std::vector<Extent> free_extents_;  // no longer mapped; ascending, neighbours are joined
  std::vector<PageId> free_;          // capacity: all pages of all slabs in memory
  std::atomic<size_t> in_use_{0};
};

inline uint32_t PageRef::owners() const { return store_->owners(page_); }

inline PageRef::~PageRef() {
  if (page_ != kNoPage) store_->release(page_);
}

}  // namespace fathom
