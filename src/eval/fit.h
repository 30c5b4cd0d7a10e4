#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace fathom::eval {

/// The largest number of units in [0, most] whose size is at most `budget`, or −1 if even none is too large. size
/// grows with the units, up to noise; it is asked few times.
int64_t largest_fit(int64_t most, int64_t budget, const std::function<int64_t(int64_t units)>& size);

/// Throws Error: `task` cannot be made in `length` tokens, it needs `needed`.
[[noreturn]] void fail_too_short(const std::string& task, int64_t length, int64_t needed);

}  // namespace fathom::eval
