#include "allocation_limit.h"

#include <cstdlib>
#include <new>

namespace fathom::test {
namespace {

constexpr int kUnlimited = -1;
thread_local int allocations_left = kUnlimited;

bool may_allocate() {
  if (allocations_left == 0) return false;
  if (allocations_left > 0) --allocations_left;
  return true;
}

}  // namespace

AllocationLimit::AllocationLimit(int allocations) { allocations_left = allocations; }
AllocationLimit::~AllocationLimit() { allocations_left = kUnlimited; }

}  // namespace fathom::test

void* operator new(size_t size) {
  void* memory = fathom::test::may_allocate() ? std::malloc(size > 0 ? size : 1) : nullptr;
  if (!memory) throw std::bad_alloc();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t /*size*/) noexcept { std::free(memory); }
