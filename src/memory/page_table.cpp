#include "memory/page_table.h"

#include <algorithm>
#include <memory>

namespace fathom {

PageTable::Run::Run(const Run& other, size_t kept) : store(other.store), count(static_cast<uint32_t>(kept)) {
  std::copy_n(other.entries.begin(), kept, entries.begin());
  for (size_t i = 0; i < kept; ++i)
    if (entries[i].page != kNoPage) store.retain(entries[i].page);
}

PageTable::Run::~Run() {
  for (size_t i = 0; i < count; ++i)
    if (entries[i].page != kNoPage) store.release(entries[i].page);
}

PageTable::RunRef::~RunRef() {
  if (run_ && run_->owners.fetch_sub(1, std::memory_order_acq_rel) == 1) std::default_delete<Run>()(run_);
}

PageTable::Run& PageTable::unshare_run(size_t r) {
  if (!runs_[r].unique()) runs_[r] = RunRef(std::make_unique<Run>(*runs_[r], runs_[r]->count).release());
  return *runs_[r];
}

void PageTable::push_back(PageEntry entry, PageRef page) {
  if (size_ % kRun == 0) {
    auto run = std::make_unique<Run>(*store_);
    runs_.emplace_back();
    runs_.back() = RunRef(run.release());
  }
  Run& run = unshare_run(size_ / kRun);
  entry.page = page.detach();
  run.entries[run.count++] = entry;
  ++size_;
}

void PageTable::set_page(size_t i, PageRef page) {
  PageEntry& entry = edit(i);
  const PageRef old(*store_, std::exchange(entry.page, page.detach()));
}

void PageTable::truncate(size_t n) {
  if (n >= size_) return;
  const size_t whole = n / kRun, rest = n % kRun;
  if (rest > 0) {
    RunRef& last = runs_[whole];
    if (!last.unique()) {
      last = RunRef(std::make_unique<Run>(*last, rest).release());
    } else {
      while (last->count > rest) {
        const PageId page = last->entries[--last->count].page;
        if (page != kNoPage) store_->release(page);
      }
    }
  }
  runs_.resize(whole + (rest > 0 ? 1 : 0));
  size_ = n;
}

}  // namespace fathom
