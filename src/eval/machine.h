#pragma once

#include <cstdint>
#include <string>

#include "base/stopwatch.h"
#include "base/thread_pool.h"
#include "kernels/kernels.h"

namespace fathom::eval {

/// What the machine can do at most with the threads in use.
struct MachineLimits {
  double read_bytes_per_second = 0;          // of memory larger than the caches
  double multiply_adds_per_second = 0;       // with the instructions of the quantised matmul
  double bf16_multiply_adds_per_second = 0;  // of bfloat16 numbers: with their own instructions, or as floats
};

/// Measures the limits, which takes a second or more; each is the best of several rounds. Shows progress.
MachineLimits measure_machine(ThreadPool& pool, const Kernels& kernels);

/// Limits of a machine whose speed may drift (other tenants, heat). They are measured once; later calls make a
/// short probe and measure them again only if it has changed by more than 15 %.
class MachineMeter {
 public:
  MachineMeter(ThreadPool& pool, const Kernels& kernels) : pool_(pool), kernels_(kernels) {}
  /// Probed at most two seconds ago.
  const MachineLimits& limits();
  /// How often limits were measured.
  int64_t measurements() const { return measurements_; }

 private:
  /// Rates of a short measurement, for comparison with each other only: caches hold a part of what it reads.
  struct Probe {
    double read_bytes_per_second = 0, multiply_adds_per_second = 0;
  };
  Probe probe() const;
  /// Whether rates now differ from probe_, in the better of two probes.
  bool drifted() const;

  ThreadPool& pool_;
  const Kernels& kernels_;
  MachineLimits limits_;
  Probe probe_;  // just after limits_ were measured
  int64_t measurements_ = 0;
  Stopwatch age_;  // of the last probe
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

}  // namespace fathom::eval
