#include "memory/memory_budget.h"

#include "base/error.h"
#include "base/format.h"

namespace fathom {

bool MemoryBudget::try_take(size_t bytes) noexcept {
  size_t used = in_use_.load(std::memory_order_relaxed);
  do {
    if (limit_ > 0 && (bytes > limit_ || used > limit_ - bytes)) return false;
  } while (!in_use_.compare_exchange_weak(used, used + bytes, std::memory_order_relaxed));
  return true;
}

void MemoryBudget::take(size_t bytes) {
  while (!try_take(bytes)) {
    if (reclaim_ && reclaim_()) continue;
    throw Error(concat("out of memory: the budget of ", format_bytes(static_cast<double>(limit_)), " (", option_,
                       ") has ", format_bytes(static_cast<double>(in_use())), " in use, and ",
                       format_bytes(static_cast<double>(bytes)), " more are needed"),
                Error::Kind::kOutOfMemory);
  }
}

}  // namespace fathom
