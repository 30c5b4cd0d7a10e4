#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <utility>

namespace fathom {

/// Counts the bytes in use against a limit. The pages and recurrent states of all sequences of an engine share one
/// budget. Thread-safe.
class MemoryBudget {
 public:
  /// limit: bytes; 0: no limit. option: the command-line option that sets the limit, for error messages.
  explicit MemoryBudget(size_t limit = 0, std::string option = "--memory")
      : limit_(limit), option_(std::move(option)) {}
  MemoryBudget(const MemoryBudget&) = delete;

  /// Takes bytes from the budget. Calls the reclaimer until they fit. Throws Error (out of memory) and takes
  /// nothing if they do not fit and the reclaimer has nothing left to free.
  void take(size_t bytes);
  /// Takes bytes if they fit and returns whether they did. Does not call the reclaimer.
  bool try_take(size_t bytes) noexcept;
  /// Returns bytes to the budget.
  void release(size_t bytes) noexcept { in_use_.fetch_sub(bytes, std::memory_order_relaxed); }

  size_t limit() const { return limit_; }
  size_t in_use() const { return in_use_.load(std::memory_order_relaxed); }

  /// Sets the function that frees memory which no sequence uses and returns whether it freed any. Not thread-safe:
  /// call it before the budget is shared between threads.
  void set_reclaimer(std::function<bool()> reclaim) { reclaim_ = std::move(reclaim); }

 private:
  size_t limit_;
  std::string option_;
  std::atomic<size_t> in_use_{0};
  std::function<bool()> reclaim_;
};

/// Holds bytes taken from a budget and releases them on destruction. Movable.
class BudgetCharge {
 public:
  BudgetCharge() = default;
  /// Takes `bytes` from `budget`. budget null: no limit. Throws what MemoryBudget::take throws.
  BudgetCharge(std::shared_ptr<MemoryBudget> budget, size_t bytes) : bytes_(bytes) {
    if (budget) budget->take(bytes);
    budget_ = std::move(budget);
  }
  /// Returns a charge of `bytes`, or an empty charge if they do not fit.
  static BudgetCharge try_take(const std::shared_ptr<MemoryBudget>& budget, size_t bytes) noexcept {
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
    if (budget_) budget_->release(bytes_);
  }
  size_t bytes() const { return bytes_; }
  /// Takes or releases the difference to another number of bytes. Throws what MemoryBudget::take throws, changing
  /// nothing.
  void resize(size_t bytes) {
    if (budget_ && bytes > bytes_) budget_->take(bytes - bytes_);
    if (budget_ && bytes < bytes_) budget_->release(bytes_ - bytes);
    bytes_ = bytes;
  }
  /// Detaches the charge from the budget without releasing its bytes; the caller must release them.
  void detach() { budget_.reset(); }

 private:
  std::shared_ptr<MemoryBudget> budget_;
  size_t bytes_ = 0;
};

}  // namespace fathom
