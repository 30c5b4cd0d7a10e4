#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "attend/attention.h"
#include "eval/machine.h"

namespace fathom {

/// One measurement of `fathom bench`.
struct Figure {
  const char* test;  // "prefill" or "decode"
  std::string attend = {};
  int64_t tokens, depth;             // of each sequence
  int64_t tokens_requested = 0;      // larger than `tokens` if time ran out
  int64_t sequences = 1;             // read or generated together
  double work = 0;                   // work of one run: multiply-adds of prefill, or bytes that decode reads
  std::vector<double> seconds = {};  // of the runs, sorted
  double speed_up = 1;               // compared with the first method: the median over rounds
  eval::MachineLimits limits = {};   // the larger of the limits before and after the runs
  bool limits_remeasured = false;    // the limits were measured again because the machine's speed had changed
  AttentionCount attention = {};
  double waited = 0;      // share of the threads' time in which other programs used the cores
  size_t peak_bytes = 0;  // resident memory

  bool is_prefill() const { return std::string_view(test) == "prefill"; }
  double median_seconds() const {
    const size_t half = seconds.size() / 2;
    return seconds.size() % 2 ? seconds[half] : (seconds[half - 1] + seconds[half]) / 2;
  }
  /// Tokens of all sequences per second.
  double tokens_per_second() const { return speed(median_seconds()); }
  double slowest() const { return speed(seconds.back()); }
  double fastest() const { return speed(seconds.front()); }
  /// Returns the speed as a share of the machine's limit: of multiply-adds for prefill, of memory reads for decode.
  double share() const {
    return work / median_seconds() /
           (is_prefill() ? limits.multiply_adds_per_second : limits.read_bytes_per_second);
  }
  double share_of_bf16() const { return work / median_seconds() / limits.bf16_multiply_adds_per_second; }

 private:
  double speed(double seconds_of_run) const { return static_cast<double>(tokens * sequences) / seconds_of_run; }
};

}  // namespace fathom
