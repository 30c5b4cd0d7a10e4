#pragma once

#include "base/thread_pool.h"
#include "kernels/kernels.h"

namespace fathom {

/// What the machine can do at most with the threads in use, measured now.
struct MachineLimits {
  double read_bytes_per_second = 0;     // of memory larger than any cache
  double multiply_adds_per_second = 0;  // with the instructions of the quantised matmul
};

/// Takes about a second. peak_resident_bytes() starts anew afterwards.
MachineLimits measure_machine(ThreadPool& pool, const Kernels& kernels);

/// The largest resident size of this process so far, in bytes.
size_t peak_resident_bytes();

}  // namespace fathom
