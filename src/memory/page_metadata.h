#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "base/byte_stream.h"
#include "memory/paged_kv.h"

namespace fathom {

/// Allocates runs of kRun page-metadata records from slabs, which are backed by huge pages. Thread-safe.
class MetadataPool {
 public:
  static constexpr size_t kRun = 64;  // records per run

  /// bytes: size of a record. Records are contiguous in a run, and a run starts at a cache line.
  explicit MetadataPool(size_t bytes);
  ~MetadataPool();
  MetadataPool(const MetadataPool&) = delete;

  size_t record_bytes() const { return bytes_; }
  /// Returns an uninitialised run. Throws Error when memory is exhausted.
  std::byte* take();
  /// Returns a run to the pool.
  void release(std::byte* run);

 private:
  size_t bytes_, run_bytes_, slab_bytes_;
  std::mutex mutex_;
  std::vector<std::byte*> slabs_, free_;
};

/// Page metadata: one record of fixed size for each full page of one page table, which a method derives from the
/// page. Records are stored in the order of the table, so a scan of all of them reads memory sequentially. Copies
/// (for forks of a sequence) share the runs in which no record is missing.
class PageMetadata {
 public:
  explicit PageMetadata(std::shared_ptr<MetadataPool> pool) : pool_(std::move(pool)) {}
  PageMetadata(const PageMetadata& other);
  PageMetadata(PageMetadata&&) = default;
  PageMetadata& operator=(PageMetadata&&) = default;

  /// Returns whether every full page of this table has an up-to-date record. May return false for a table with a
  /// partly filled page before its last entry.
  bool current(const PagedKv& kv, int head) const;
  /// Calls make(entry, record), which fills the bytes of the record, for each full page without an up-to-date
  /// record: a new page, or one that was written to or moved.
  template <class Make>
  void update(const PagedKv& kv, int head, const Make& make) {
    const PageTable& table = kv.table(head);
    runs_.resize(run_count(table));
    current_ = std::min(current_, kv.first_changed(head, version_));
    version_ = kv.version(head);
    for (size_t e = current_; e < table.size(); ++e) {
      const PageEntry& entry = table[e];
      if (!has_record(entry)) continue;
      const Source source = source_of(kv, entry);
      const Run* run = runs_[e / MetadataPool::kRun].get();
      const size_t i = e % MetadataPool::kRun;
      if (run && run->sources[i] == source) continue;
      Run& own = unshare_run(e / MetadataPool::kRun);
      own.sources[i] = {};  // invalid until make returns
      make(entry, own.record(i));
      own.sources[i] = source;
    }
    while (current_ < table.size() && table[current_].filled == kPageTokens) ++current_;
    seal();
  }
  /// Returns the record of a page-table entry, which must hold a full page, as of the last update.
  const std::byte* operator[](size_t entry) const {
    return runs_[entry / MetadataPool::kRun]->record(entry % MetadataPool::kRun);
  }

  /// Bytes of the records; of runs that copies share, a fair share.
  size_t bytes() const;
  /// Appends the up-to-date records to `out`.
  void save(ByteWriter& out, const PagedKv& kv, int head) const;
  /// Restores the records that save() wrote, without making any. The table must have the same entries as the saved
  /// one, but may have other pages. Throws Error for records of entries without a full page, and of another size.
  void load(ByteReader& in, const PagedKv& kv, int head);

  /// Returns how many of the first `entries` (indices of page-table entries) have contiguous records; at least 1.
  static size_t contiguous_records(std::span<const uint32_t> entries) {
    size_t count = 1;
    while (count < entries.size() && entries[count] == entries[count - 1] + 1 &&
           entries[count] % MetadataPool::kRun != 0)
      ++count;
    return count;
  }

 private:
  struct Source {  // the page state from which a record was made
    PageId page = kNoPage;
    uint32_t version = 0;
    int64_t position = 0;
    bool operator==(const Source&) const = default;
  };
  struct Run {
    explicit Run(std::shared_ptr<MetadataPool> from) : pool(std::move(from)), bytes(pool->take()) {}
    Run(const Run& other);
    ~Run() { pool->release(bytes); }
    std::byte* record(size_t i) const { return bytes + i * pool->record_bytes(); }

    std::shared_ptr<MetadataPool> pool;
    std::byte* bytes;
    std::array<Source, MetadataPool::kRun> sources;
    bool sealed = false;  // may be shared, so it must not be written to
  };

  /// Returns the source from which an up-to-date record of an entry is made.
  static Source source_of(const PagedKv& kv, const PageEntry& entry) {
    return {entry.page, kv.store().version(entry.page), entry.position};
  }
  static size_t run_count(const PageTable& table) {
    return (table.size() + MetadataPool::kRun - 1) / MetadataPool::kRun;
  }
  static bool has_record(const PageEntry& entry) { return entry.filled == kPageTokens && entry.page != kNoPage; }
  /// Returns the mask of the up-to-date records of a run.
  uint64_t up_to_date(size_t run, const PagedKv& kv, int head) const;
  /// Returns a run for writing; copies it first if it is sealed.
  Run& unshare_run(size_t index);
  /// Seals the runs in which no record is missing.
  void seal();

  std::shared_ptr<MetadataPool> pool_;
  std::vector<std::shared_ptr<Run>> runs_;
  uint64_t version_ = ~uint64_t{0};  // page-table version at the last update
  size_t current_ = 0;  // number of leading entries that are full and have up-to-date records at that version
};

}  // namespace fathom
