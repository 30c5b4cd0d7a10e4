#include "allocation_limit.h"

#include <cstdlib>
#include <new>

namespace fathom::test {
namespace {

constexpr int kUnlimited = -1;
thread_local int allocations_left = kUnlimited;
thread_local size_t bytes_requested = 0;

void* allocate(size_t size) {
  if (allocations_left == 0) return nullptr;
  if (allocations_left > 0) --allocations_left;
  bytes_requested += size;
  return std::malloc(size > 0 ? size : 1);
}

}  // namespace

size_t allocated_bytes() { return bytes_requested; }

AllocationLimit::AllocationLimit(int allocations) { allocations_left = allocations; }
AllocationLimit::~AllocationLimit() { allocations_left = kUnlimited; }

}  // namespace fathom::test

void* operator new(size_t size) {
  void* memory = fathom::test::allocate(size);
  if (!memory) throw std::bad_alloc();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t /*size*/) noexcept { std::free(memory); }
