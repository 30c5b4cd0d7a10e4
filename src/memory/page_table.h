#pragma once

#include <array>
#include <atomic>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <utility>
#include <vector>

#include "memory/page_store.h"

namespace fathom {

/// One entry of a page table: a page, its position, and the mask of its visible tokens.
struct PageEntry {
  PageId page = 0;
  int filled = 0;        // tokens written, from offset 0
  int64_t first = 0;     // sequence index (order of reading) of the token at offset 0
  int64_t position = 0;  // rotary position of the token at offset 0
  uint64_t mask = 0;     // visible tokens, bit i = offset i; if 0, the page may be kNoPage
};

/// The page table of one layer and one key/value head. Its entries cover consecutive token indices up to the newest
/// token, starting at the first token or, after compaction, at a later one. Entries are stored in runs of 32, and
/// copies of a table share runs until one of them writes (copy on write): copying a table of n entries costs n/32
/// pointers. A run owns the pages of its entries.
class PageTable {
 public:
  static constexpr size_t kRun = 32;  // entries of a run: 1 KiB

  /// The store must outlive the table.
  explicit PageTable(PageStore& store) : store_(&store) {}
  PageTable(const PageTable& other) = default;
  PageTable(PageTable&& other) noexcept
      : store_(other.store_), size_(std::exchange(other.size_, 0)), runs_(std::move(other.runs_)) {}
  PageTable& operator=(PageTable other) noexcept {
    std::swap(store_, other.store_);
    std::swap(size_, other.size_);
    std::swap(runs_, other.runs_);
    return *this;
  }

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  const PageEntry& operator[](size_t i) const { return runs_[i / kRun]->entries[i % kRun]; }
  const PageEntry& front() const { return (*this)[0]; }
  const PageEntry& back() const { return (*this)[size_ - 1]; }

  /// A random access iterator over const entries.
  class Iterator {
   public:
    using value_type = PageEntry;
    using difference_type = std::ptrdiff_t;
    using reference = const PageEntry&;
    using pointer = const PageEntry*;
    using iterator_category = std::random_access_iterator_tag;

    Iterator() = default;
    Iterator(const PageTable* table, size_t at) : table_(table), at_(static_cast<difference_type>(at)) {}
    reference operator*() const { return (*table_)[static_cast<size_t>(at_)]; }
    pointer operator->() const { return &**this; }
    reference operator[](difference_type n) const { return *(*this + n); }
    Iterator& operator+=(difference_type n) { return at_ += n, *this; }
    Iterator& operator-=(difference_type n) { return at_ -= n, *this; }
    Iterator& operator++() { return *this += 1; }
    Iterator& operator--() { return *this -= 1; }
    Iterator operator++(int) { return ++*this, *this - 1; }
    Iterator operator--(int) { return --*this, *this + 1; }
    friend Iterator operator+(Iterator it, difference_type n) { return it += n; }
    friend Iterator operator+(difference_type n, Iterator it) { return it += n; }
    friend Iterator operator-(Iterator it, difference_type n) { return it -= n; }
    friend difference_type operator-(const Iterator& a, const Iterator& b) { return a.at_ - b.at_; }
    bool operator==(const Iterator& other) const { return at_ == other.at_; }
    auto operator<=>(const Iterator& other) const { return at_ <=> other.at_; }

   private:
    const PageTable* table_ = nullptr;
    difference_type at_ = 0;
  };
  Iterator begin() const { return {this, 0}; }
  Iterator end() const { return {this, size_}; }

  /// Returns entry i for writing. Its page must only be changed by set_page. Throws std::bad_alloc when a shared
  /// run cannot be copied.
  PageEntry& edit(size_t i) { return unshare_run(i / kRun).entries[i % kRun]; }
  /// Appends an entry with this page, or with kNoPage if `page` is empty. Throws std::bad_alloc, changing nothing.
  void push_back(PageEntry entry, PageRef page);
  /// Replaces the page of an entry, by kNoPage if `page` is empty, and releases the old one. Throws what edit
  /// throws.
  void set_page(size_t i, PageRef page);
  /// Keeps the first n entries and releases the pages of the others. Throws std::bad_alloc, changing nothing, if n
  /// is inside a shared run that cannot be copied.
  void truncate(size_t n);

  /// Bytes of the table itself, without pages; shared runs are counted in full.
  size_t bytes() const { return runs_.size() * (sizeof(Run) + sizeof(RunRef)); }

 private:
  struct Run {
    explicit Run(PageStore& from) : store(from) {}
    Run(const Run& other, size_t count);
    ~Run();
    PageStore& store;
    std::atomic<uint32_t> owners{1};
    uint32_t count = 0;  // entries
    std::array<PageEntry, kRun> entries;
  };
  /// A reference to a run. The count uses acquire and release order, so a sole owner can write without a lock.
  class RunRef {
   public:
    RunRef() = default;
    explicit RunRef(Run* run) : run_(run) {}
    RunRef(const RunRef& other) : run_(other.run_) {
      if (run_) run_->owners.fetch_add(1, std::memory_order_relaxed);
    }
    RunRef(RunRef&& other) noexcept : run_(std::exchange(other.run_, nullptr)) {}
    RunRef& operator=(RunRef other) noexcept {
      std::swap(run_, other.run_);
      return *this;
    }
    ~RunRef();
    Run* operator->() const { return run_; }
    Run& operator*() const { return *run_; }
    bool unique() const { return run_->owners.load(std::memory_order_acquire) == 1; }

   private:
    Run* run_ = nullptr;
  };
  /// Returns run r for writing; copies it first if it is shared.
  Run& unshare_run(size_t r);

  PageStore* store_;
  size_t size_ = 0;
  std::vector<RunRef> runs_;
};

}  // namespace fathom
