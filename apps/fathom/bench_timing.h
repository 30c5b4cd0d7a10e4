#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "attend/attention.h"
#include "session/session.h"

namespace fathom {

using Sessions = std::vector<Session>;

/// What `fathom bench` times: one run of a test on forks of a method's sessions.
struct BenchTest {
  std::string label;                           // for progress: "prefill 512 at depth 16k"
  int64_t tokens = 0;                          // of one run, of each sequence
  int64_t least_tokens = 1;                    // runs are not made shorter than this
  std::function<double(int64_t tokens)> work;  // of a run of so few tokens, in any unit: time grows with it
  /// Calls progress with the number of tokens done.
  std::function<void(Sessions& forks, std::span<const int32_t> tokens,
                     const std::function<void(int64_t done)>& progress)>
      run;
};

struct TimingLimits {
  int64_t runs = 3;     // of each method
  double seconds = 20;  // for each method, warm-up included
};

/// The timed runs of one method, in order.
struct TimedRuns {
  std::vector<double> seconds;
  AttentionCount attention;
};

struct Timing {
  int64_t tokens = 0;              // of each run
  std::vector<TimedRuns> methods;  // each has the same number of runs
  double waited_share = 0;         // of the threads' time, in which other programs had the cores
};

/// Times runs on fresh forks of each method's sessions, the methods in turn, after a warm-up. To stay within
/// limits.seconds it makes fewer runs, then halves their tokens; at least one run of least_tokens is made. tokens:
/// at least test.tokens. Throws Error (interrupted) on Ctrl-C.
Timing time_runs(const BenchTest& test, std::span<const Sessions> methods, std::span<const int32_t> tokens,
                 const TimingLimits& limits, Runtime& runtime);

}  // namespace fathom
