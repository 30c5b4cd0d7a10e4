#include "memory/page_metadata.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/aligned.h"
#include "base/error.h"
#include "base/slab.h"
#include "memory/sequence_state.h"

namespace fathom {
namespace {

/// Calls visit(first, count) for each stretch of set bits.
template <class Visit>
void each_stretch(uint64_t mask, const Visit& visit) {
  for (int first = 0; first < 64 && mask >> first != 0;) {
    first += std::countr_zero(mask >> first);
    const int count = std::countr_one(mask >> first);
    visit(first, count);
    first += count;
  }
}

}  // namespace

static_assert(MetadataPool::kRun == 64, "the records of a run have one bit each in a mask");
static_assert(MetadataPool::kRun % kAlignment == 0, "runs of records of any size start at cache lines");

MetadataPool::MetadataPool(size_t bytes)
    : bytes_(bytes), run_bytes_(kRun * bytes), slab_bytes_(round_up_to_huge_page(run_bytes_)) {}

MetadataPool::~MetadataPool() {
  for (std::byte* slab : slabs_) unmap_slab(slab, slab_bytes_);
}

std::byte* MetadataPool::take() {
  const std::lock_guard lock(mutex_);
  if (free_.empty()) {
    std::byte* slab = map_slab(slab_bytes_);
    if (!slab) fail("out of memory: cannot allocate ", slab_bytes_, " more bytes for page metadata");
    slabs_.push_back(slab);
    free_.reserve(slabs_.size() * (slab_bytes_ / run_bytes_));  // so that release() allocates nothing
    for (size_t i = slab_bytes_ / run_bytes_; i-- > 0;) free_.push_back(slab + i * run_bytes_);
  }
  std::byte* run = free_.back();
  free_.pop_back();
  return run;
}

void MetadataPool::release(std::byte* run) {
  const std::lock_guard lock(mutex_);
  free_.push_back(run);
}

PageMetadata::Run::Run(const Run& other) : pool(other.pool), bytes(pool->take()), sources(other.sources) {
  std::memcpy(bytes, other.bytes, MetadataPool::kRun * pool->record_bytes());
}

PageMetadata::PageMetadata(const PageMetadata& other)
    : pool_(other.pool_), runs_(other.runs_), version_(other.version_), current_(other.current_) {
  for (std::shared_ptr<Run>& run : runs_)
    if (run && !run->sealed) run = std::make_shared<Run>(*run);
}

bool PageMetadata::current(const PagedKv& kv, int head) const {
  const PageTable& table = kv.table(head);
  if (version_ != kv.version(head) || current_ + 1 < table.size()) return false;
  return current_ == table.size() || table[current_].filled < kPageTokens;
}

PageMetadata::Run& PageMetadata::unshare_run(size_t index) {
  std::shared_ptr<Run>& run = runs_[index];
  if (!run) {
    run = std::make_shared<Run>(pool_);
  } else if (run->sealed) {
    run = std::make_shared<Run>(*run);
  }
  return *run;
}

uint64_t PageMetadata::up_to_date(size_t run, const PagedKv& kv, int head) const {
  const PageTable& table = kv.table(head);
  const size_t begin = run * MetadataPool::kRun, end = std::min(begin + MetadataPool::kRun, table.size());
  uint64_t mask = 0;
  for (size_t e = begin; runs_[run] && e < end; ++e)
    if (has_record(table[e]) && runs_[run]->sources[e - begin] == source_of(kv, table[e]))
      mask |= uint64_t{1} << (e - begin);
  return mask;
}

size_t PageMetadata::bytes() const {
  size_t bytes = 0;
  for (const auto& run : runs_) bytes += fair_share(run, sizeof(Run) + MetadataPool::kRun * pool_->record_bytes());
  return bytes;
}

void PageMetadata::save(ByteWriter& out, const PagedKv& kv, int head) const {
  const size_t bytes = pool_->record_bytes();
  const size_t runs = std::min(runs_.size(), run_count(kv.table(head)));
  out.add(uint64_t{bytes});
  out.add(uint64_t{runs});
  for (size_t r = 0; r < runs; ++r) {
    const uint64_t mask = up_to_date(r, kv, head);
    out.add(mask);
    each_stretch(mask, [&](int first, int count) { out.add_bytes({runs_[r]->record(first), count * bytes}); });
  }
}

void PageMetadata::load(ByteReader& in, const PagedKv& kv, int head) {
  const PageTable& table = kv.table(head);
  const size_t bytes = pool_->record_bytes();
  const auto found = in.take<uint64_t>();
  in.check(found == bytes, "expected records of ", bytes, " bytes for each page, found ", found);
  const auto count = in.take<uint64_t>();
  const size_t all = run_count(table);
  in.check(count <= all, "expected at most ", all, " runs of page records, found ", count);
  runs_.resize(all);
  for (size_t r = 0; r < count; ++r) {
    const auto mask = in.take<uint64_t>();
    each_stretch(mask, [&](int first, int records) {
      const std::span<const std::byte> from = in.take_bytes(records * bytes);
      Run& run = unshare_run(r);
      std::memcpy(run.record(first), from.data(), from.size());
      for (int i = first; i < first + records; ++i) {
        const size_t e = r * MetadataPool::kRun + i;
        in.check(e < table.size() && has_record(table[e]), "found a record of page-table entry ", e,
                 ", which has no full page");
        run.sources[i] = source_of(kv, table[e]);
      }
    });
  }
  version_ = kv.version(head);
  const auto is_current = [&](size_t e) {
    const Run* run = runs_[e / MetadataPool::kRun].get();
    return table[e].filled == kPageTokens &&
           (table[e].page == kNoPage || (run && run->sources[e % MetadataPool::kRun].page != kNoPage));
  };
  for (current_ = 0; current_ < table.size() && is_current(current_);) ++current_;
  seal();
}

void PageMetadata::seal() {
  const auto made = [](const Source& source) { return source.page != kNoPage; };
  for (const std::shared_ptr<Run>& run : runs_)
    if (run && !run->sealed) run->sealed = std::ranges::all_of(run->sources, made);
}

}  // namespace fathom
