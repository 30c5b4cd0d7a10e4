#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "memory/paged_kv.h"

namespace fathom {

/// Memory for runs of page metadata, backed by huge pages. Thread-safe.
class MetadataPool {
 public:
  static constexpr size_t kRun = 64;  // records of a run

  /// bytes: of a record; records lie at multiples of it in a run that starts at a cache line.
  explicit MetadataPool(size_t bytes);
  ~MetadataPool();
  MetadataPool(const MetadataPool&) = delete;

  size_t record_bytes() const { return bytes_; }
  /// A run with arbitrary contents. Throws Error when there is no memory.
  std::byte* take();
  void give_back(std::byte* run);

 private:
  size_t bytes_, run_bytes_, slab_bytes_;
  std::mutex mutex_;
  std::vector<std::byte*> slabs_, free_;
};

/// What a method derives from the full pages of one page table: a record for each, side by side in the order of the
/// table, so that reading all of them is one stream. Copies, for forks of a sequence, share the runs in which no
/// record is missing.
class PageMetadata {
 public:
  explicit PageMetadata(std::shared_ptr<MetadataPool> pool) : pool_(std::move(pool)) {}
  PageMetadata(const PageMetadata& other);
  PageMetadata(PageMetadata&&) = default;
  PageMetadata& operator=(PageMetadata&&) = default;

  /// Whether each full page of this table has a record, and nothing has changed since it was made.
  bool current(const PagedKv& kv, int head) const;
  /// make(entry, record) fills the bytes of the record of each full page that has none, or was written to or moved
  /// since.
  template <class Make>
  void update(const PagedKv& kv, int head, const Make& make) {
    const PageStore& store = kv.store();
    const PageTable& table = kv.table(head);
    runs_.resize((table.size() + MetadataPool::kRun - 1) / MetadataPool::kRun);
    certain_ = std::min(certain_, kv.first_changed(head, version_));
    version_ = kv.version(head);
    for (size_t e = certain_; e < table.size(); ++e) {
      const PageEntry& entry = table[e];
      if (entry.filled < kPageTokens || entry.page == kNoPage) continue;
      const Source source{entry.page, store.version(entry.page), entry.position};
      const Run* run = runs_[e / MetadataPool::kRun].get();
      const size_t i = e % MetadataPool::kRun;
      if (run && run->sources[i] == source) continue;
      Run& own = own_run(e / MetadataPool::kRun);
      own.sources[i] = {};  // until it is made
      make(entry, own.record(i));
      own.sources[i] = source;
    }
    while (certain_ < table.size() && table[certain_].filled == kPageTokens) ++certain_;
    seal();
  }
  /// The record of the full page of a page-table entry, as of the last update.
  const std::byte* operator[](size_t entry) const {
    return runs_[entry / MetadataPool::kRun]->record(entry % MetadataPool::kRun);
  }

  /// How many of these entries, from the first on, have records that lie one after the other.
  static size_t contiguous_records(std::span<const uint32_t> entries) {
    size_t count = 1;
    while (count < entries.size() && entries[count] == entries[count - 1] + 1 &&
           entries[count] % MetadataPool::kRun != 0)
      ++count;
    return count;
  }

 private:
  struct Source {  // what a record was made from
    PageId page = kNoPage;
    uint32_t version = 0;
    int64_t position = 0;
    bool operator==(const Source&) const = default;
  };
  struct Run {
    explicit Run(std::shared_ptr<MetadataPool> from) : pool(std::move(from)), bytes(pool->take()) {}
    Run(const Run& other);
    ~Run() { pool->give_back(bytes); }
    std::byte* record(size_t i) const { return bytes + i * pool->record_bytes(); }

    std::shared_ptr<MetadataPool> pool;
    std::byte* bytes;
    std::array<Source, MetadataPool::kRun> sources;
    bool sealed = false;  // others may hold it: never written to again
  };

  /// A run to be written to.
  Run& own_run(size_t index);
  void seal();

  std::shared_ptr<MetadataPool> pool_;
  std::vector<std::shared_ptr<Run>> runs_;
  uint64_t version_ = ~uint64_t{0};  // of the table at the last update
  size_t certain_ = 0;               // first entries, all full, whose records are current at that version
};

}  // namespace fathom
