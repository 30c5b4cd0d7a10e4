#pragma once

#include <string>

#include "base/stopwatch.h"
#include "base/thread_pool.h"
#include "kernels/kernels.h"

namespace fathom {

/// What the machine can do at most with the threads in use.
struct MachineLimits {
  double read_bytes_per_second = 0;          // of memory larger than the caches
  double multiply_adds_per_second = 0;       // with the instructions of the quantised matmul
  double bf16_multiply_adds_per_second = 0;  // of bfloat16 numbers: with their own instructions, or as floats
};

/// Measures it now, in about a second; each limit is the best of several rounds. peak_resident_bytes() starts anew
/// afterwards.
MachineLimits measure_machine(ThreadPool& pool, const Kernels& kernels);

/// Limits for a machine whose speed drifts (other tenants, heat): measured again whenever they are older than a
/// moment.
class MachineMeter {
 public:
  MachineMeter(ThreadPool& pool, const Kernels& kernels) : pool_(pool), kernels_(kernels) {}
  /// At most two seconds old.
  const MachineLimits& limits();

 private:
  ThreadPool& pool_;
  const Kernels& kernels_;
  MachineLimits limits_;
  bool measured_ = false;
  Stopwatch age_;
};

/// Of each limit the larger.
MachineLimits larger(const MachineLimits& a, const MachineLimits& b);

/// What the processor calls itself, "Intel(R) Xeon(R) …"; where the system does not tell, its architecture.
std::string processor_name();

/// Seconds that this process's threads were ready to run while others had the cores, all of them together, so far;
/// 0 where the system does not tell. What has waited is measured too slow.
double seconds_waited();

/// The largest resident size of this process since the last reset, in bytes; where the system cannot reset it, so
/// far.
size_t peak_resident_bytes();
void reset_peak_resident_bytes();

}  // namespace fathom
