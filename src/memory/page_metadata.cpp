#include "memory/page_metadata.h"

#include <algorithm>
#include <cstring>

#include "base/aligned.h"
#include "base/error.h"
#include "base/slab.h"

namespace fathom {

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

void PageMetadata::seal() {
  const auto made = [](const Source& source) { return source.page != kNoPage; };
  for (const std::shared_ptr<Run>& run : runs_)
    if (run && !run->sealed) run->sealed = std::ranges::all_of(run->sources, made);
}

}  // namespace fathom
