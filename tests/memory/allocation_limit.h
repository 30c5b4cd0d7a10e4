#pragma once

namespace fathom::test {

/// While it lives, operator new throws std::bad_alloc on this thread after `allocations` more calls.
class AllocationLimit {
 public:
  explicit AllocationLimit(int allocations);
  ~AllocationLimit();
  AllocationLimit(const AllocationLimit&) = delete;
};

}  // namespace fathom::test
