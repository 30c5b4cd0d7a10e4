#pragma once

#include <cstdint>
#include <string>

#include "base/stopwatch.h"
#include "base/thread_pool.h"
#include "kernels/kernels.h"

namespace fathom::eval {

/// Peak rates of the machine with the threads in use.
struct MachineLimits {
  double read_bytes_per_second = 0;          // reading memory that exceeds the caches
  double multiply_adds_per_second = 0;       // with the instructions of the quantised matmul
  double bf16_multiply_adds_per_second = 0;  // of bfloat16 values, with bfloat16 instructions or as floats
};

/// Measures the limits, each as the best of several rounds. Takes a second or more and shows progress.
MachineLimits measure_machine(ThreadPool& pool, const Kernels& kernels);

/// Limits of a machine whose speed may drift (other tenants, heat). They are measured once. Later calls run a short
/// probe and measure again only if its rates differ from those of the first probe by more than 15 %.
class MachineMeter {
 public:
  MachineMeter(ThreadPool& pool, const Kernels& kernels) : pool_(pool), kernels_(kernels) {}
  /// Returns the limits. A probe checks them unless the last one was less than two seconds ago.
  const MachineLimits& limits();
  /// Returns the number of measurements of the limits so far.
  int64_t measurements() const { return measurements_; }

 private:
  /// Rates of a short measurement. They are comparable only with each other, because a part of the memory that a
  /// probe reads is in the caches.
  struct Probe {
    double read_bytes_per_second = 0, multiply_adds_per_second = 0;
  };
  Probe probe() const;
  /// Returns whether the better of up to two probes differs from probe_ by more than the tolerance.
  bool drifted() const;

  ThreadPool& pool_;
  const Kernels& kernels_;
  MachineLimits limits_;
  Probe probe_;  // taken just after limits_ were measured
  int64_t measurements_ = 0;
  Stopwatch age_;  // time since the last probe
};

/// Returns the larger value of each limit.
MachineLimits larger(const MachineLimits& a, const MachineLimits& b);

/// Returns the processor's model name ("Intel(R) Xeon(R) …"), or the architecture if the system does not report it.
std::string processor_name();

/// Returns the seconds that this process's threads have been ready to run without a core so far, summed over the
/// threads; 0 if the system does not report it. If this grows during a measurement, the measured speed is too low.
double seconds_waited();

/// Returns the bytes of the machine's memory.
size_t physical_memory();

/// Returns the largest resident size of this process in bytes since the last reset; since its start if the system
/// cannot reset it.
size_t peak_resident_bytes();
/// Starts a new peak for peak_resident_bytes().
void reset_peak_resident_bytes();

}  // namespace fathom::eval
