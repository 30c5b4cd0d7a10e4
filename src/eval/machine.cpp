#include "eval/machine.h"

#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <vector>

#include "base/aligned.h"
#include "base/progress.h"

namespace fathom::eval {
namespace {

// Numbers of rounds. The best round is used, because other programs may slow down the machine.
constexpr int kReadRounds = 6, kPeakRounds = 5;
constexpr double kPeakSeconds = 0.05;           // minimum of all rounds together
constexpr size_t kReadBytes = size_t{1} << 30;  // exceeds the last-level caches of servers (hundreds of megabytes)
constexpr size_t kPieceBytes = size_t{1} << 20;
constexpr int64_t kPeakOperations = int64_t{1} << 30;  // per thread and round: 1 to 20 ms

constexpr int kProbeRounds = 2;
constexpr size_t kProbeBytes = kReadBytes / 2;
constexpr double kProbeAge = 2;  // seconds until the next probe
constexpr double kDrift = 0.15;  // relative change of a rate; above the noise of probes on shared machines

/// Returns `bytes`, at most an eighth of the memory, as a multiple of kPieceBytes.
size_t bytes_to_read(size_t bytes) {
  return std::max(std::min(bytes, physical_memory() / 8) / kPieceBytes, size_t{1}) * kPieceBytes;
}

using RoundDone = std::function<void()>;

double best_read_rate(ThreadPool& pool, const Kernels& kernels, size_t max_bytes, int rounds,
                      const RoundDone& done) {
  const size_t bytes = bytes_to_read(max_bytes), pieces = bytes / kPieceBytes;
  AlignedBuffer<std::byte> memory(bytes);
  pool.parallel_for(pieces, [&](size_t i, int) {
    std::memset(memory.data() + i * kPieceBytes, static_cast<int>(i), kPieceBytes);
  });
  std::vector<uint32_t> sums(pieces);
  double best = 0;
  for (int round = 0; round < rounds; ++round) {
    const Stopwatch watch;
    pool.parallel_for(pieces,
                      [&](size_t i, int) { sums[i] = kernels.read(memory.data() + i * kPieceBytes, kPieceBytes); });
    best = std::max(best, static_cast<double>(bytes) / watch.seconds());
    done();
  }
  return best;
}

/// Runs at least `rounds` rounds and at least `min_seconds`.
double best_peak(ThreadPool& pool, const Kernels& kernels, int64_t (*peak)(int64_t, float*), int rounds,
                 double min_seconds, const RoundDone& done) {
  // the reference kernels are orders of magnitude slower
  const int64_t operations = kernels.isa == "reference" ? kPeakOperations / 64 : kPeakOperations;
  std::vector<int64_t> counts(pool.threads());
  std::vector<float> sinks(pool.threads());
  double best = 0;
  const Stopwatch all;
  for (int round = 0; round < rounds || all.seconds() < min_seconds; ++round) {
    const Stopwatch watch;
    pool.parallel_for(pool.threads(), [&](size_t i, int) { counts[i] = peak(operations, &sinks[i]); });
    const double seconds = watch.seconds();
    double total = 0;
    for (const int64_t count : counts) total += static_cast<double>(count);
    best = std::max(best, total / seconds);
    if (round < rounds) done();
  }
  return best;
}

}  // namespace

MachineLimits measure_machine(ThreadPool& pool, const Kernels& kernels) {
  Progress progress("measuring the machine", "rounds", kReadRounds + (kernels.peak_bf16 ? 3 : 2) * kPeakRounds);
  int64_t rounds = 0;
  const RoundDone done = [&] { progress.update(++rounds); };
  const auto best = [&](int64_t (*peak)(int64_t, float*)) {
    return best_peak(pool, kernels, peak, kPeakRounds, kPeakSeconds, done);
  };
  MachineLimits limits;
  limits.read_bytes_per_second = best_read_rate(pool, kernels, kReadBytes, kReadRounds, done);
  limits.multiply_adds_per_second = best(kernels.peak);
  limits.bf16_multiply_adds_per_second = best(kernels.peak_f32);
  if (kernels.peak_bf16)
    limits.bf16_multiply_adds_per_second = std::max(limits.bf16_multiply_adds_per_second, best(kernels.peak_bf16));
  return limits;
}

MachineMeter::Probe MachineMeter::probe() const {
  const RoundDone no_progress = [] {};
  return {best_read_rate(pool_, kernels_, kProbeBytes, kProbeRounds, no_progress),
          best_peak(pool_, kernels_, kernels_.peak, kProbeRounds, 0, no_progress)};
}

bool MachineMeter::drifted() const {
  const auto exceeds_drift = [](double before, double now) { return std::abs(now / before - 1) > kDrift; };
  const auto differs = [&](const Probe& now) {
    return exceeds_drift(probe_.read_bytes_per_second, now.read_bytes_per_second) ||
           exceeds_drift(probe_.multiply_adds_per_second, now.multiply_adds_per_second);
  };
  const Probe first = probe();
  if (!differs(first)) return false;
  const Probe second = probe();  // another program may have disturbed the first probe
  return differs({std::max(first.read_bytes_per_second, second.read_bytes_per_second),
                  std::max(first.multiply_adds_per_second, second.multiply_adds_per_second)});
}

const MachineLimits& MachineMeter::limits() {
  if (measurements_ > 0 && age_.seconds() <= kProbeAge) return limits_;
  if (measurements_ == 0 || drifted()) {
    limits_ = measure_machine(pool_, kernels_);
    probe_ = probe();
    ++measurements_;
  }
  age_ = Stopwatch();
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

size_t physical_memory() {
  return static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

size_t peak_resident_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stoull(line.substr(6)) * 1024;
  }
  rusage usage{};  // without /proc: the peak of the whole process, which cannot be reset
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<size_t>(usage.ru_maxrss) * 1024;
}

}  // namespace fathom::eval
