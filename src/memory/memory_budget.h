#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <utility>

namespace fathom {

/// Bytes that several owners share: pages and recurrent states of all sequences of an engine. Thread-safe.
class MemoryBudget {
 public:
  /// limit: bytes; 0: no limit. option: what a user sets it with, for messages.
  explicit MemoryBudget(size_t limit = 0, std::string option = "--memory")
      : limit_(limit), option_(std::move(option)) {}
  MemoryBudget(const MemoryBudget&) = delete;

  /// Takes bytes. Where they do not fit, the reclaimer is called until they do. Throws Error (out of memory),
  /// taking nothing, when nothing is left to reclaim.
  void take(size_t bytes);
  /// The same without an error and without reclaiming; false: they do not fit.
  bool try_take(size_t bytes) noexcept;
  void give_back(size_t bytes) noexcept { in_use_.fetch_sub(bytes, std::memory_order_relaxed); }

  size_t limit() const { return limit_; }
  size_t in_use() const { return in_use_.load(std::memory_order_relaxed); }

  /// `reclaim` frees something that no sequence uses and returns whether it did. Set before the budget is shared.
  void set_reclaimer(std::function<bool()> reclaim) { reclaim_ = std::move(reclaim); }

 private:
  size_t limit_;
  std::string option_;
  std::atomic<size_t> in_use_{0};
  std::function<bool()> reclaim_;
};

/// Bytes taken from a budget until destruction. Movable.
class BudgetCharge {
 public:
  BudgetCharge() = default;
  /// budget null: no limit. Throws what MemoryBudget::take throws.
  BudgetCharge(std::shared_ptr<MemoryBudget> budget, size_t bytes) : bytes_(bytes) {
    if (budget) budget->take(bytes);
    budget_ = std::move(budget);
  }
  /// A charge of the bytes, or of none where they do not fit.
  static BudgetCharge if_it_fits(const std::shared_ptr<MemoryBudget>& budget, size_t bytes) noexcept {
    BudgetCharge charge;
    if (budget && !budget->try_take(bytes)) return charge;
    charge.budget_ = budget;
    charge.bytes_ = bytes;
    return charge;
  }
  BudgetCharge(BudgetCharge&& other) noexcept
      : budget_(std::move(other.budget_)), bytes_(std::exchange(other.bytes_, 0)) {}
  BudgetCharge& operator=(BudgetCharge&& other) noexcept {
    std::swap(budget_, other.budget_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~BudgetCharge() {
    if (budget_) budget_->give_back(bytes_);
  }
  size_t bytes() const { return bytes_; }
  /// The bytes stay taken; who gives them back is the caller's business.
  void release() { budget_.reset(); }

 private:
  std::shared_ptr<MemoryBudget> budget_;
  size_t bytes_ = 0;
};

}  // namespace fathom
