#include "eval/machine.h"

#include <sys/resource.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "base/aligned.h"
#include "base/stopwatch.h"

namespace fathom {
namespace {

constexpr int kRounds = 20;  // the best of them: a limit is what was reached once, on a machine that may be shared
constexpr size_t kReadBytes = size_t{256} << 20;  // far larger than a last-level cache's share
constexpr size_t kPieceBytes = size_t{1} << 20;
constexpr int64_t kPeakOperations = int64_t{4} << 30;  // per thread and round: about 10 ms

/// Four sums in flight, so that only memory limits the loop.
uint64_t sum_words(const uint64_t* words, size_t n) {
  uint64_t a = 0, b = 0, c = 0, d = 0;
  for (size_t i = 0; i + 4 <= n; i += 4) {
    a += words[i];
    b += words[i + 1];
    c += words[i + 2];
    d += words[i + 3];
  }
  return a + b + c + d;
}

double best_read_rate(ThreadPool& pool) {
  AlignedBuffer<std::byte> memory(kReadBytes);
  const size_t pieces = kReadBytes / kPieceBytes;
  pool.parallel_for(pieces, [&](size_t i, int) {
    std::memset(memory.data() + i * kPieceBytes, static_cast<int>(i), kPieceBytes);
  });
  std::vector<uint64_t> sums(pieces);
  double best = 0;
  for (int round = 0; round < kRounds; ++round) {
    const Stopwatch watch;
    pool.parallel_for(pieces, [&](size_t i, int) {
      sums[i] = sum_words(reinterpret_cast<const uint64_t*>(memory.data() + i * kPieceBytes), kPieceBytes / 8);
    });
    best = std::max(best, static_cast<double>(kReadBytes) / watch.seconds());
  }
  volatile uint64_t keep = sums[0];
  (void)keep;
  return best;
}

}  // namespace

MachineLimits measure_machine(ThreadPool& pool, const Kernels& kernels) {
  MachineLimits limits;
  limits.read_bytes_per_second = best_read_rate(pool);
  // the plain kernels would take minutes for what the vector units do in a moment
  const int64_t operations = kernels.isa == "reference" ? kPeakOperations / 64 : kPeakOperations;
  for (int round = 0; round < kRounds; ++round) {
    std::vector<int64_t> done(pool.threads());
    std::vector<float> sinks(pool.threads());
    const Stopwatch watch;
    pool.parallel_for(pool.threads(), [&](size_t i, int) { done[i] = kernels.peak(operations, &sinks[i]); });
    const double seconds = watch.seconds();
    double total = 0;
    for (const int64_t d : done) total += static_cast<double>(d);
    limits.multiply_adds_per_second = std::max(limits.multiply_adds_per_second, total / seconds);
  }
  // What measuring took is not to count as the peak of what comes after: 5 resets VmHWM.
  std::ofstream("/proc/self/clear_refs") << 5;
  return limits;
}

size_t peak_resident_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stoull(line.substr(6)) * 1024;
  }
  rusage usage{};  // no /proc: the peak of the whole process, which cannot be reset
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<size_t>(usage.ru_maxrss) * 1024;
}

}  // namespace fathom
