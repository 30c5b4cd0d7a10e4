#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace fathom::eval {

/// Returns the largest number of units in [0, max_units] whose size is at most `budget`, or −1 if size(0) exceeds
/// the budget. `size` must increase with the units, up to noise; it is called few times (interpolation and
/// bisection).
int64_t largest_fit(int64_t max_units, int64_t budget, const std::function<int64_t(int64_t units)>& size);

/// Throws Error: `task` cannot be made in `length` tokens and needs at least `needed`.
[[noreturn]] void fail_too_short(const std::string& task, int64_t length, int64_t needed);

}  // namespace fathom::eval
