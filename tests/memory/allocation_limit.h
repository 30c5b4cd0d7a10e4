#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <functional>
#include <new>

namespace fathom::test {

/// While it lives, operator new throws std::bad_alloc on this thread after `allocations` more calls.
class AllocationLimit {
 public:
  explicit AllocationLimit(int allocations);
  ~AllocationLimit();
  AllocationLimit(const AllocationLimit&) = delete;
};

/// The bytes that operator new has given to this thread so far.
size_t allocated_bytes();

/// Calls `attempt`, which is to throw, with no allocation allowed, then with one, two and so on until it succeeds;
/// `check` runs after each failure.
inline void with_each_failing_allocation(const std::function<void()>& attempt, const std::function<void()>& check) {
  for (int allocations = 0;; ++allocations) {
    ASSERT_LT(allocations, 1000);
    try {
      const AllocationLimit limit(allocations);
      attempt();
      ASSERT_GT(allocations, 0) << "nothing is allocated: the test would test nothing";
      return;
    } catch (const std::bad_alloc&) {
      check();
    }
  }
}

}  // namespace fathom::test
