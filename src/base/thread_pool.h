#pragma once

#include <cstddef>
#include <functional>
#include <memory>

namespace fathom {

/// A fixed set of threads that work on one job at a time. Between jobs they spin briefly, then sleep.
class ThreadPool {
 public:
  /// threads: at least 1, the calling thread included. Throws Error if they cannot be started.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  /// Calls body(index, thread) once for each index in [0, count) and returns when all calls are done. A thread
  /// takes the next index whenever it is free; thread is in [0, threads()). If a body throws, the remaining indices
  /// are skipped and the first exception is rethrown here. Not reentrant: a body must not call it. The result of a
  /// body must not depend on `thread`, so that results are the same with any number of threads.
  void parallel_for(size_t count, const std::function<void(size_t index, int thread)>& body);

 private:
  struct State;
  std::unique_ptr<State> state_;
  int threads_;
};

}  // namespace fathom
