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

/// What a page holds: the keys and values of 64 tokens of one layer and one key/value head (layouts at PageFormat).
struct PageShape {
  PageFormat format = PageFormat::kBF16;
  int key_dim = 0;  // even
  int value_dim = 0;
  // -1: values of their own. Otherwise pages hold keys alone, and the value of a token is dimensions
  // [value_offset, value_offset + value_dim) of its key, behind those that rotate (latent attention: DeepSeek-V2,
  // 2024).
  int value_offset = -1;

  bool values_in_keys() const { return value_offset >= 0; }
  size_t key_bytes() const { return page_key_bytes(format, key_dim); }
  size_t value_bytes() const { return values_in_keys() ? 0 : page_value_bytes(format, value_dim); }
  size_t bytes() const { return key_bytes() + value_bytes(); }
  bool operator==(const PageShape&) const = default;
};

class PageStore;

/// One owner of a page: releases it on destruction. Movable.
class PageRef {
 public:
  PageRef() = default;
  /// Takes over an owner that exists already.
  PageRef(PageStore& store, PageId page) : store_(&store), page_(page) {}
  PageRef(PageRef&& other) noexcept : store_(other.store_), page_(std::exchange(other.page_, kNoPage)) {}
  PageRef& operator=(PageRef&& other) noexcept {
    std::swap(store_, other.store_);
    std::swap(page_, other.page_);
    return *this;
  }
  ~PageRef();

  PageId get() const { return page_; }
  /// Owners of the page, this one included.
  uint32_t owners() const;
  /// The caller becomes the owner.
  PageId detach() { return std::exchange(page_, kNoPage); }

 private:
  PageStore* store_ = nullptr;
  PageId page_ = kNoPage;
};

/// Pages of one shape with reference counts, shared by sequences and their forks. Pages lie in slabs of memory, or
/// in extents that the caller has mapped, which are only read. Thread-safe.
class PageStore {
 public:
  /// budget: what pages in memory are taken from; null: no limit.
  explicit PageStore(PageShape shape, std::shared_ptr<MemoryBudget> budget = nullptr);
  ~PageStore();
  PageStore(const PageStore&) = delete;

  const PageShape& shape() const { return shape_; }

  /// Returns a page with one owner; its contents are zero. Throws Error or std::bad_alloc, changing nothing, when
  /// memory is exhausted.
  PageRef allocate();
  /// Returns the first of `count` consecutive pages, one owner each, whose bytes lie in a read-only mapping from
  /// `pages` on, shape().bytes() each, aligned to 64 bytes. They count as shared, so that whoever writes copies
  /// them, and not towards the budget. `mapping` is kept until the last of them is released. Throws Error when the
  /// store has no numbers left.
  PageId map(std::span<const std::byte> pages, size_t count, std::shared_ptr<const void> mapping);
  void retain(PageId page) noexcept;
  /// Removes an owner; the last one's release frees the page. Needs no memory.
  void release(PageId page) noexcept;
  /// Another number whenever the page may hold something else than before; never 0.
  uint32_t version(PageId page) const { return at(page).version.load(std::memory_order_acquire); }
  /// Its owner is about to write into it.
  void touch(PageId page) { at(page).version.fetch_add(1, std::memory_order_release); }
  /// Whether it must be copied before it is written to.
  bool shared(PageId page) const {
    return at(page).owners.load(std::memory_order_acquire) > 1 || slab_of(page).mapping != nullptr;
  }
  uint32_t owners(PageId page) const { return at(page).owners.load(std::memory_order_acquire); }

  std::byte* keys(PageId page) { return slab_of(page).data + (page % pages_per_slab_) * shape_.bytes(); }
  const std::byte* keys(PageId page) const {
    return slab_of(page).data + (page % pages_per_slab_) * shape_.bytes();
  }
  /// The keys themselves where they hold the values.
  std::byte* values(PageId page) { return keys(page) + values_at_; }
  const std::byte* values(PageId page) const { return keys(page) + values_at_; }
  /// Dimension d of the value of one token. Slow.
  float value(PageId page, int token, int d) const;
  /// Copies the value of one token to another page, bits and all; nothing where it is part of the key.
  void copy_value(PageId from, int from_token, PageId to, int to_token);

  /// Pages in memory that are in use, times their size; mapped ones are not counted.
  size_t bytes_in_use() const { return in_use_.load() * shape_.bytes(); }

  /// Above every page's number.
  size_t most_pages() const { return kMaxSlabs * pages_per_slab_; }

 private:
  static constexpr size_t kMaxSlabs = 1 << 16;  // 256 GiB of pages
  static constexpr size_t kSlabBytes =
      size_t{4} << 20;  // large enough that mapping costs nothing, small enough to waste little

  struct PageState {
    std::atomic<uint32_t> owners{0}, version{1};
  };
  struct Mapping {  // an extent of read-only pages
    std::shared_ptr<const void> kept;
    std::atomic<size_t> live;  // pages with owners
    size_t first_slab, slabs;
  };
  struct Slab {
    std::byte* data = nullptr;
    std::unique_ptr<PageState[]> pages;  // [pages_per_slab_]
    std::shared_ptr<Mapping> mapping;    // null: memory of our own
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
  size_t values_at_;  // bytes from the start of a page to its values
  std::shared_ptr<MemoryBudget> budget_;
  size_t pages_per_slab_;
  size_t slab_bytes_;
  std::unique_ptr<Slab[]> slabs_;  // [kMaxSlabs], filled from the front: readers need no lock
  std::mutex mutex_;
  size_t slab_count_ = 0;
  size_t memory_slabs_ = 0;  // of them in memory
  size_t mapped_extents_ = 0;
  uint32_t latest_mapping_ = 0;       // the version of its pages: others had their numbers before
  std::vector<Extent> free_extents_;  // that are mapped no more: ascending, not side by side
  std::vector<PageId> free_;          // has room for all pages of all slabs in memory
  std::atomic<size_t> in_use_{0};
};

inline uint32_t PageRef::owners() const { return store_->owners(page_); }

inline PageRef::~PageRef() {
  if (page_ != kNoPage) store_->release(page_);
}

}  // namespace fathom
