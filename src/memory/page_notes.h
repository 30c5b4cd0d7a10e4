#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>

#include "base/aligned.h"
#include "memory/page_store.h"

namespace fathom {

/// What a method derives from pages: a note of some bytes for each page, made when it is first asked for and anew
/// when the page has been written to. Notes follow the pages: a sequence and its forks share both. Thread-safe.
class PageNotes {
 public:
  /// bytes: of a note.
  PageNotes(std::shared_ptr<const PageStore> store, size_t bytes);
  ~PageNotes();
  PageNotes(const PageNotes&) = delete;

  const PageStore& store() const { return *store_; }
  /// The note of a page that is not being written to; make(note) fills its bytes if they are not those of the
  /// page's present contents. Notes begin at a multiple of 8.
  template <class Make>
  const std::byte* get(PageId page, const Make& make) {
    std::byte* entry = entry_of(page);
    const std::atomic_ref<uint32_t> noted(*reinterpret_cast<uint32_t*>(entry));
    std::byte* note = entry + kHeader;
    const uint32_t version = store_->version(page);
    if (noted.load(std::memory_order_acquire) == version) return note;
    const std::lock_guard lock(mutexes_[page % mutexes_.size()]);
    if (noted.load(std::memory_order_relaxed) != version) {
      make(note);
      noted.store(version, std::memory_order_release);
    }
    return note;
  }
  /// Asks memory for the note of a page, which get() will soon be called for.
  void fetch(PageId page) {
    store_->fetch_version(page);
    const std::byte* entry = entry_of(page);
    for (size_t b = 0; b < stride_; b += kAlignment) __builtin_prefetch(entry + b);
  }

 private:
  static constexpr size_t kHeader = 8;  // the version of the contents noted; 0: none

  /// A page's version and note, from a cache line on.
  std::byte* entry_of(PageId page) {
    std::byte* slab = slabs_[page / notes_per_slab_].load(std::memory_order_acquire);
    return (slab ? slab : new_slab(page / notes_per_slab_)) + page % notes_per_slab_ * stride_;
  }
  std::byte* new_slab(size_t index);
  size_t slab_count() const { return (store_->most_pages() + notes_per_slab_ - 1) / notes_per_slab_; }

  std::shared_ptr<const PageStore> store_;
  size_t stride_, notes_per_slab_, slab_bytes_;
  std::unique_ptr<std::atomic<std::byte*>[]> slabs_;  // [slab_count()]
  std::array<std::mutex, 64> mutexes_;                // of the pages, in turn
  std::mutex slabs_mutex_;
};

}  // namespace fathom
