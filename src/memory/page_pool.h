#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "memory/memory_budget.h"
#include "memory/page_store.h"
#include "memory/prefix_index.h"

namespace fathom {

/// The pages of all sequences of an engine: a store per shape, and one budget for all of them. Thread-safe.
class PagePool {
 public:
  /// budget: bytes of pages and recurrent states; 0: no limit.
  explicit PagePool(size_t budget = 0) : budget_(std::make_shared<MemoryBudget>(budget)) {}
  ~PagePool() { budget_->set_reclaimer(nullptr); }
  PagePool(const PagePool&) = delete;

  const std::shared_ptr<MemoryBudget>& budget() const { return budget_; }
  /// The store of a shape, made when it is first wanted.
  std::shared_ptr<PageStore> store(const PageShape& shape) {
    const std::lock_guard lock(mutex_);
    for (const auto& store : stores_)
      if (store->shape() == shape) return store;
    return stores_.emplace_back(std::make_shared<PageStore>(shape, budget_));
  }
  /// Blocks of tokens that sequences share, of so many tokens; made at the first call, whose block counts. When the
  /// budget is exhausted, those that no sequence uses are dropped.
  PrefixIndex& prefixes(int64_t block) {
    const std::lock_guard lock(mutex_);
    if (!prefixes_) {
      prefixes_ = std::make_unique<PrefixIndex>(block);
      budget_->set_reclaimer([index = prefixes_.get()] { return index->reclaim(); });
    }
    return *prefixes_;
  }

 private:
  std::shared_ptr<MemoryBudget> budget_;
  std::mutex mutex_;
  std::vector<std::shared_ptr<PageStore>> stores_;
  std::unique_ptr<PrefixIndex> prefixes_;  // before the stores that its pages are in
};

}  // namespace fathom
