#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "kernels/kernels.h"

namespace fathom {

using PageId = uint32_t;
inline constexpr PageId kNoPage = ~PageId{0};

/// What a page holds: the keys and values of 64 tokens of one layer and one key/value head (layouts at PageFormat).
struct PageShape {
  PageFormat format = PageFormat::kBF16;
  int key_dim = 0;  // even
  int value_dim = 0;

  size_t key_bytes() const { return page_key_bytes(format, key_dim); }
  size_t value_bytes() const { return page_value_bytes(format, value_dim); }
  size_t bytes() const { return key_bytes() + value_bytes(); }
};

/// Pages of one shape with reference counts, shared by a sequence and its forks. Thread-safe.
class PageStore {
 public:
  explicit PageStore(PageShape shape);
  ~PageStore();
  PageStore(const PageStore&) = delete;

  const PageShape& shape() const { return shape_; }

  /// Returns a page with one owner; its contents are zero. Throws Error or std::bad_alloc, changing nothing, when
  /// memory is exhausted.
  PageId allocate();
  void retain(PageId page) noexcept;
  /// Removes an owner; the last one's release frees the page. Needs no memory.
  void release(PageId page) noexcept;
  /// Another number whenever the page may hold something else than before; never 0.
  uint32_t version(PageId page) const { return at(page).version.load(std::memory_order_acquire); }
  /// Its owner is about to write into it.
  void touch(PageId page) { at(page).version.fetch_add(1, std::memory_order_release); }
  bool shared(PageId page) const { return at(page).owners.load(std::memory_order_acquire) > 1; }

  std::byte* keys(PageId page) { return slab(page) + (page % pages_per_slab_) * shape_.bytes(); }
  const std::byte* keys(PageId page) const { return slab(page) + (page % pages_per_slab_) * shape_.bytes(); }
  std::byte* values(PageId page) { return keys(page) + shape_.key_bytes(); }
  const std::byte* values(PageId page) const { return keys(page) + shape_.key_bytes(); }

  /// Pages in use times their size.
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
  struct Slab {
    std::byte* data;
    std::unique_ptr<PageState[]> pages;  // [pages_per_slab_]
  };
  void add_slab();
  std::byte* slab(PageId page) const { return slabs_[page / pages_per_slab_].data; }
  PageState& at(PageId page) const { return slabs_[page / pages_per_slab_].pages[page % pages_per_slab_]; }

  PageShape shape_;
  size_t pages_per_slab_;
  size_t slab_bytes_;
  std::unique_ptr<Slab[]> slabs_;  // [kMaxSlabs], filled from the front: readers need no lock
  std::mutex mutex_;
  size_t slab_count_ = 0;
  std::vector<PageId> free_;  // has room for all pages of all slabs
  std::atomic<size_t> in_use_{0};
};

}  // namespace fathom
