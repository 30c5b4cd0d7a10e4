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

/// A test that `fathom bench` times. Each run uses new forks of a method's sessions.
struct BenchTest {
  std::string label;                           // shown as progress, such as "prefill 512 at depth 16k"
  int64_t tokens = 0;                          // of each sequence in one run
  int64_t min_tokens = 1;                      // shortest allowed run
  std::function<double(int64_t tokens)> work;  // work of a run of `tokens` tokens, in any unit proportional to time
  /// Makes one run. Calls progress with the number of tokens done.
  std::function<void(Sessions& forks, std::span<const int32_t> tokens,
                     const std::function<void(int64_t done)>& progress)>
      run;
};

struct TimingLimits {
  int64_t runs = 3;     // of each method
  double seconds = 20;  // of each method, warm-up included
};

/// The timed runs of one method, in the order in which they were made.
struct TimedRuns {
  std::vector<double> seconds;
  AttentionCount attention;
};

/// The result of time_runs.
struct Timing {
  int64_t tokens = 0;              // of each run
  std::vector<TimedRuns> methods;  // all have the same number of runs
  double waited_share = 0;         // share of the threads' time in which other programs used the cores
};

/// Times runs on new forks of each method's sessions, after a warm-up. Each round makes one run of every method. To
/// stay within limits.seconds it makes fewer rounds, then halves the tokens of a run; it makes at least one round
/// of at least min_tokens. tokens: at least test.tokens. Throws Error (interrupted) on Ctrl-C.
Timing time_runs(const BenchTest& test, std::span<const Sessions> methods, std::span<const int32_t> tokens,
                 const TimingLimits& limits, Runtime& runtime);

}  // namespace fathom
