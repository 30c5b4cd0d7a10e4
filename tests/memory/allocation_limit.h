#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <functional>
#include <new>

namespace fathom::test {

/// Until its destruction, operator new throws std::bad_alloc on this thread after `allocations` more calls.
class AllocationLimit {
 public:
  explicit AllocationLimit(int allocations);
  ~AllocationLimit();
  AllocationLimit(const AllocationLimit&) = delete;
};

/// Returns the total bytes that this thread has requested from operator new so far.
size_t allocated_bytes();

/// Calls `attempt` with 0, 1, 2, … allocations allowed until it succeeds. Calls `check` after each std::bad_alloc.
inline void with_each_failing_allocation(const std::function<void()>& attempt, const std::function<void()>& check) {
  for (int allocations = 0;; ++allocations) {
    ASSERT_LT(allocations, 1000);
    try {
      const AllocationLimit limit(allocations);
      attempt();
      ASSERT_GT(allocations, 0) << "attempt allocates nothing, so nothing was tested";
      return;
    } catch (const std::bad_alloc&) {
      check();
    }
  }
}

}  // namespace fathom::test
