#pragma once

#include <atomic>

#include "base/error.h"

namespace fathom {

/// A flag that requests work to end soon. Thread-safe, and usable in a signal handler.
class StopToken {
 public:
  void request_stop() noexcept { requested_.store(true, std::memory_order_relaxed); }
  bool stop_requested() const noexcept { return requested_.load(std::memory_order_relaxed); }
  void reset() noexcept { requested_.store(false, std::memory_order_relaxed); }
  /// Throws Error of kind kInterrupted if a stop has been requested.
  void throw_if_requested() const {
    if (stop_requested()) throw Error("interrupted", Error::Kind::kInterrupted);
  }

 private:
  std::atomic<bool> requested_{false};
  static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler may use lock-free atomics only");
};

}  // namespace fathom
