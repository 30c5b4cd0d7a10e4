#include "decode/stop_matcher.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace fathom {

StopMatcher::StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {
  for (const std::string& stop : stops_) {
    if (stop.empty()) fail_usage("a stop string must not be empty");
  }
}

std::string StopMatcher::add(std::string_view text) {
  if (stopped_) return {};
  held_ += text;
  // Of all stop strings found, the one that ends first is used, and the longest of those with the same end. This
  // does not depend on the pieces.
  size_t first_end = std::string::npos, first_begin = 0;
  for (const std::string& stop : stops_) {
    const size_t begin = held_.find(stop);
    if (begin == std::string::npos) continue;
    if (std::pair(begin + stop.size(), begin) < std::pair(first_end, first_begin)) {
      first_end = begin + stop.size();
      first_begin = begin;
    }
  }
  stopped_ = first_end != std::string::npos;
  const size_t decided = stopped_ ? first_begin : held_.size() - held_bytes();
  std::string out = held_.substr(0, decided);
  held_ = stopped_ ? "" : held_.substr(decided);
  return out;
}

/// Returns the length of the longest suffix of held_ that is the start of a stop string.
size_t StopMatcher::held_bytes() const {
  size_t longest = 0;
  for (const std::string& stop : stops_) {
    for (size_t n = std::min(stop.size() - 1, held_.size()); n > longest; --n) {
      if (held_.compare(held_.size() - n, n, stop, 0, n) == 0) longest = n;
    }
  }
  return longest;
}

std::string StopMatcher::flush() { return std::exchange(held_, {}); }

}  // namespace fathom
