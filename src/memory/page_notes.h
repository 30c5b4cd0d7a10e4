#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>

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
  /// page's present contents.
  template <class Make>
  const std::byte* get(PageId page, const Make& make) {
    Slab& slab = slab_of(page);
    const size_t index = page % store_->pages_per_slab();
    std::byte* note = slab.bytes.get() + index * bytes_;
    const uint32_t version = store_->version(page);
    if (slab.versions[index].load(std::memory_order_acquire) == version) return note;
    const std::lock_guard lock(mutexes_[page % mutexes_.size()]);
    if (slab.versions[index].load(std::memory_order_relaxed) != version) {
      make(note);
      slab.versions[index].store(version, std::memory_order_release);
    }
    return note;
  }
  /// Asks memory for the note of a page, which get() will soon be called for.
  void fetch(PageId page) {
    const std::byte* note = slab_of(page).bytes.get() + page % store_->pages_per_slab() * bytes_;
    for (size_t b = 0; b < bytes_; b += 64) __builtin_prefetch(note + b);
  }

 private:
  struct Slab {
    std::unique_ptr<std::byte[]> bytes;                 // [pages of a slab, bytes_]
    std::unique_ptr<std::atomic<uint32_t>[]> versions;  // of the contents noted; 0: none
  };
  Slab& slab_of(PageId page);

  std::shared_ptr<const PageStore> store_;
  size_t bytes_;
  std::unique_ptr<std::atomic<Slab*>[]> slabs_;  // [PageStore::kMaxSlabs]
  std::array<std::mutex, 64> mutexes_;           // of the pages, in turn
  std::mutex slabs_mutex_;
};

}  // namespace fathom
