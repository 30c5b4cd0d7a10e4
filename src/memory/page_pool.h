#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "memory/memory_budget.h"
#include "memory/page_store.h"
#include "memory/prefix_index.h"

namespace fathom {

/// The page memory of one engine: one PageStore per page shape, one MemoryBudget for all of them, and the prefix
/// index. Thread-safe.
class PagePool {
 public:
  /// budget: limit in bytes for pages and recurrent states together; 0: no limit.
  explicit PagePool(size_t budget = 0) : budget_(std::make_shared<MemoryBudget>(budget)) {
    budget_->set_reclaimer([this] { return reclaim(); });
  }
  ~PagePool() { budget_->set_reclaimer(nullptr); }
  PagePool(const PagePool&) = delete;

  const std::shared_ptr<MemoryBudget>& budget() const { return budget_; }
  /// Returns the store of a shape. Creates it at the first call.
  std::shared_ptr<PageStore> store(const PageShape& shape) {
    const std::lock_guard lock(mutex_);
    for (const auto& store : stores_)
      if (store->shape() == shape) return store;
    return stores_.emplace_back(std::make_shared<PageStore>(shape, budget_));
  }
  /// Returns the index of shared prefixes in blocks of `block` tokens. Creates it at the first call. When the
  /// budget is exhausted, blocks that no sequence uses are evicted. Throws what the constructor of PrefixIndex
  /// throws.
  PrefixIndex& prefixes(int64_t block) {
    const std::lock_guard lock(mutex_);
    std::unique_ptr<PrefixIndex>& index = prefixes_[block];
    if (!index) index = std::make_unique<PrefixIndex>(block);
    return *index;
  }

 private:
  /// Evicts a block of a prefix index. Returns false if there is none.
  bool reclaim() {
    const std::lock_guard lock(mutex_);
    return std::ranges::any_of(prefixes_,
                               [](const auto& index) { return index.second && index.second->reclaim(); });
  }

  std::shared_ptr<MemoryBudget> budget_;
  std::mutex mutex_;
  std::vector<std::shared_ptr<PageStore>> stores_;
  // By block; declared last: destroyed before the stores of its pages.
  std::map<int64_t, std::unique_ptr<PrefixIndex>> prefixes_;
};

}  // namespace fathom
