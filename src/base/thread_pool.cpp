#include "base/thread_pool.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <limits>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/aligned.h"
#include "base/error.h"

namespace fathom {

namespace {

// The jobs of a decode step are a few microseconds apart; waking a sleeping thread takes tens of microseconds.
// Spinning this long keeps the workers awake within a step, and on a busy machine costs little more than one
// wake-up after it.
constexpr std::chrono::microseconds kSpinTime{50};
// Number of pauses between two readings of the clock. One reading takes about as long as one pause.
constexpr int kPausesPerClock = 16;

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb");
#endif
}

/// Spins until `ready()`, for at most kSpinTime. Returns the last result of ready().
template <class Ready>
bool spin_until(const Ready& ready) {
  const auto start = std::chrono::steady_clock::now();
  do {
    for (int i = 0; i < kPausesPerClock; ++i) {
      if (ready()) return true;
      pause();
    }
  } while (std::chrono::steady_clock::now() - start < kSpinTime);
  return ready();
}

// The unclaimed indices of a job in one word: the count in the upper half, the next index in the lower half. One
// fetch_add claims an index and returns whether one was left. A worker that arrives after the end of a job
// therefore finds no index, and the caller never waits for it.
using Ticket = uint64_t;
constexpr Ticket ticket(uint64_t count, uint64_t next) { return count << 32 | next; }
constexpr uint32_t count_of(Ticket word) { return static_cast<uint32_t>(word >> 32); }
constexpr uint32_t next_of(Ticket word) { return static_cast<uint32_t>(word); }
constexpr bool has_work(Ticket word) { return next_of(word) < count_of(word); }
// Each thread can increment past the count once. Up to this count the lower half does not overflow.
constexpr size_t kMaxCount = std::numeric_limits<uint32_t>::max() / 2;

}  // namespace

struct ThreadPool::State {
  using Body = std::function<void(size_t, int)>;

  // Read by idle threads: on a cache line that working threads write only to claim indices.
  alignas(kAlignment) std::atomic<Ticket> tickets{0};
  // A thread about to sleep marks itself as sleeping, then checks its condition once more. A thread that makes the
  // condition true does so first, then checks for sleepers. With sequentially consistent order at least one of the
  // two checks succeeds.
  std::atomic<int> sleeping_workers{0};
  std::atomic<bool> caller_sleeps{false};
  std::atomic<bool> stop{false};

  // The current job: written by the caller before it publishes the tickets, read only by threads with a ticket.
  alignas(kAlignment) const Body* body = nullptr;
  std::exception_ptr error;  // of the first thread that set `failed`
  std::atomic<bool> failed{false};
  std::atomic<uint32_t> done{0};  // indices finished or skipped

  std::mutex mutex;  // held by a thread that is about to sleep
  std::condition_variable wake_workers, wake_caller;
  std::vector<std::thread> workers;

  /// Works on the current job until no index is left. Returns when the indices of this thread are done; other
  /// threads may still be working.
  void work_on_job(int thread) {
    uint32_t finished = 0, count = 0;
    while (has_work(tickets.load(std::memory_order_relaxed))) {
      const Ticket mine = tickets.fetch_add(1, std::memory_order_acq_rel);
      if (!has_work(mine)) break;
      count = count_of(mine);
      finished += run_index(next_of(mine), count, thread);
    }
    if (finished == 0) return;
    if (done.fetch_add(finished) + finished == count && caller_sleeps.load()) wake(wake_caller);
  }

  /// Runs one index. If it throws, also claims all unclaimed indices, to skip them. Returns the number of indices
  /// finished or skipped.
  uint32_t run_index(uint32_t index, uint32_t count, int thread) {
    try {
      (*body)(index, thread);
      return 1;
    } catch (...) {
      if (!failed.exchange(true)) error = std::current_exception();
      const Ticket left = tickets.exchange(ticket(count, count), std::memory_order_acq_rel);
      return 1 + (has_work(left) ? count - next_of(left) : 0);
    }
  }

  void wake(std::condition_variable& sleepers) {
    // Waits for a thread that has checked for work but does not sleep yet: it holds the mutex.
    { const std::lock_guard lock(mutex); }
    sleepers.notify_all();
  }

  void worker_loop(int thread) {
    const auto job_or_stop = [this] { return has_work(tickets.load()) || stop.load(); };
    while (!stop.load()) {
      if (!spin_until(job_or_stop)) {
        std::unique_lock lock(mutex);
        ++sleeping_workers;
        wake_workers.wait(lock, job_or_stop);
        --sleeping_workers;
      }
      work_on_job(thread);
    }
  }

  void wait_until_done(uint32_t count) {
    const auto all_done = [this, count] { return done.load() == count; };
    if (spin_until(all_done)) return;
    std::unique_lock lock(mutex);
    caller_sleeps = true;
    wake_caller.wait(lock, all_done);
    caller_sleeps = false;
  }

  void stop_all() {
    stop = true;
    wake(wake_workers);
    for (std::thread& worker : workers) worker.join();
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()), threads_(threads) {
  if (threads < 1) fail_usage("number of threads must be at least 1, found ", threads);
  try {
    for (int thread = 1; thread < threads; ++thread) {
      state_->workers.emplace_back([state = state_.get(), thread] { state->worker_loop(thread); });
    }
  } catch (const std::exception& error) {
    state_->stop_all();
    fail("cannot start ", threads, " threads: ", error.what());
  }
}

ThreadPool::~ThreadPool() { state_->stop_all(); }

void ThreadPool::parallel_for(size_t count, const std::function<void(size_t index, int thread)>& body) {
  if (count <= 1 || threads_ == 1) {
    for (size_t index = 0; index < count; ++index) body(index, 0);
    return;
  }
  if (count > kMaxCount) fail("parallel_for: expected at most ", kMaxCount, " indices, found ", count);
  State& state = *state_;
  state.body = &body;
  state.failed = false;
  state.done = 0;
  state.tickets = ticket(count, 0);
  if (state.sleeping_workers.load() > 0) state.wake(state.wake_workers);
  state.work_on_job(0);
  state.wait_until_done(static_cast<uint32_t>(count));
  if (state.failed) std::rethrow_exception(std::exchange(state.error, nullptr));
}

}  // namespace fathom
