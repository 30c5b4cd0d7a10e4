#pragma once

#include <span>
#include <vector>

#include "eval/record_log.h"

namespace fathom::eval {

/// Returns one summary per model, task, length and method, in the order of their first records: n, the mean score
/// with its 95 % interval, medians of speeds, means of shares, of cache_bytes and of the numbers in details, and
/// the largest peak_rss_bytes.
std::vector<Record> summarize(std::span<const Record> records);

}  // namespace fathom::eval
