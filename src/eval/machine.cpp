#include "eval/machine.h"

#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <vector>

#include "base/aligned.h"

namespace fathom {
namespace {

// The best of them: a limit is what was reached once, on a machine that may be shared.
constexpr int kReadRounds = 6, kPeakRounds = 5;
constexpr double kPeakSeconds = 0.05;           // at least
constexpr size_t kReadBytes = size_t{1} << 30;  // servers have last-level caches of hundreds of megabytes
constexpr size_t kPieceBytes = size_t{1} << 20;
constexpr int64_t kPeakOperations = int64_t{1} << 30;  // per thread and round: 1 to 20 ms
constexpr double kLimitsAge = 2;                       // seconds until limits are measured again

/// kReadBytes, or an eighth of the memory if that is less.
size_t read_bytes() {
  const auto memory = static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return std::max(std::min(kReadBytes, memory / 8) / kPieceBytes, size_t{1}) * kPieceBytes;
}

double best_read_rate(ThreadPool& pool, const Kernels& kernels) {
  const size_t bytes = read_bytes(), pieces = bytes / kPieceBytes;
  AlignedBuffer<std::byte> memory(bytes);
  pool.parallel_for(pieces, [&](size_t i, int) {
    std::memset(memory.data() + i * kPieceBytes, static_cast<int>(i), kPieceBytes);
  });
  std::vector<uint32_t> sums(pieces);
  double best = 0;
  for (int round = 0; round < kReadRounds; ++round) {
    const Stopwatch watch;
    pool.parallel_for(pieces,
                      [&](size_t i, int) { sums[i] = kernels.read(memory.data() + i * kPieceBytes, kPieceBytes); });
    best = std::max(best, static_cast<double>(bytes) / watch.seconds());
  }
  return best;
}

double best_peak(ThreadPool& pool, const Kernels& kernels, int64_t (*peak)(int64_t, float*)) {
  // the plain kernels would take minutes for what the vector units do in a moment
  const int64_t operations = kernels.isa == "reference" ? kPeakOperations / 64 : kPeakOperations;
  std::vector<int64_t> done(pool.threads());
  std::vector<float> sinks(pool.threads());
  double best = 0;
  const Stopwatch all;
  for (int round = 0; round < kPeakRounds || all.seconds() < kPeakSeconds; ++round) {
    const Stopwatch watch;
    pool.parallel_for(pool.threads(), [&](size_t i, int) { done[i] = peak(operations, &sinks[i]); });
    const double seconds = watch.seconds();
    double total = 0;
    for (const int64_t d : done) total += static_cast<double>(d);
    best = std::max(best, total / seconds);
  }
  return best;
}

}  // namespace

MachineLimits measure_machine(ThreadPool& pool, const Kernels& kernels) {
  MachineLimits limits;
  limits.read_bytes_per_second = best_read_rate(pool, kernels);
  limits.multiply_adds_per_second = best_peak(pool, kernels, kernels.peak);
  limits.bf16_multiply_adds_per_second = best_peak(pool, kernels, kernels.peak_f32);
  if (kernels.peak_bf16) {
    limits.bf16_multiply_adds_per_second =
        std::max(limits.bf16_multiply_adds_per_second, best_peak(pool, kernels, kernels.peak_bf16));
  }
  reset_peak_resident_bytes();  // what measuring took is not to count as the peak of what comes after
  return limits;
}

const MachineLimits& MachineMeter::limits() {
  if (!measured_ || age_.seconds() > kLimitsAge) {
    limits_ = measure_machine(pool_, kernels_);
    measured_ = true;
    age_ = Stopwatch();
  }
  return limits_;
}

MachineLimits larger(const MachineLimits& a, const MachineLimits& b) {
  return {std::max(a.read_bytes_per_second, b.read_bytes_per_second),
          std::max(a.multiply_adds_per_second, b.multiply_adds_per_second),
          std::max(a.bf16_multiply_adds_per_second, b.bf16_multiply_adds_per_second)};
}

std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  utsname system{};
  uname(&system);
  return system.machine;
}

double seconds_waited() {
  double total = 0;
  std::error_code error;
  for (const auto& thread : std::filesystem::directory_iterator("/proc/self/task", error)) {
    double ran = 0, waited = 0;  // nanoseconds
    if (std::ifstream(thread.path() / "schedstat") >> ran >> waited) total += waited * 1e-9;
  }
  return total;
}

void reset_peak_resident_bytes() {
  std::ofstream("/proc/self/clear_refs") << 5;  // 5: VmHWM
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
