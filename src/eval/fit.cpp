#include "eval/fit.h"

#include <algorithm>

#include "base/error.h"

namespace fathom::eval {

int64_t largest_fit(int64_t max_units, int64_t budget, const std::function<int64_t(int64_t)>& size) {
  int64_t low = 0, low_size = size(0);
  if (low_size > budget) return -1;
  int64_t high = max_units, high_size = size(max_units);
  if (high_size <= budget) return max_units;
  // Sizes are nearly proportional to the units: interpolate, with an offset of one in every third round to get a
  // value on the other side, and bisect in every third round in case interpolation does not converge.
  for (int round = 0; high - low > 1; ++round) {
    int64_t guess = low + (high - low) / 2;
    if (round % 3 != 2 && high_size > low_size) {
      const double share = static_cast<double>(budget - low_size) / static_cast<double>(high_size - low_size);
      guess = low + static_cast<int64_t>(share * static_cast<double>(high - low));
      if (round % 3 == 1) guess += guess - low > (high - low) / 2 ? -1 : 1;
    }
    guess = std::clamp(guess, low + 1, high - 1);
    const int64_t guess_size = size(guess);
    if (guess_size <= budget) {
      low = guess, low_size = guess_size;
    } else {
      high = guess, high_size = guess_size;
    }
  }
  return low;
}

void fail_too_short(const std::string& task, int64_t length, int64_t needed) {
  fail("task ", task, ": needs at least ", needed, " tokens, the answer included; the length is ", length);
}

}  // namespace fathom::eval
