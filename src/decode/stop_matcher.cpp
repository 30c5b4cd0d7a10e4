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
  // The one that is complete first counts, whatever came in one piece with it; of those the longest.
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
  const size_t clear = stopped_ ? first_begin : held_.size() - held_bytes();
  std::string out = held_.substr(0, clear);
  held_ = stopped_ ? "" : held_.substr(clear);
  return out;
}

/// The longest end of held_ that begins a stop string.
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
