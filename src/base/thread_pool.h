#pragma once

#include <cstddef>
#include <functional>
#include <memory>

namespace fathom {

/// A fixed set of threads that work together on one job at a time. Between jobs they spin for a moment, then sleep.
class ThreadPool {
 public:
  /// threads ≥ 1, the caller included. Throws Error if they cannot be started.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  /// Calls body(index, thread) once for each index in [0, count), spread over the threads in order of demand;
  /// returns when all are done. thread in [0, threads()). The first exception a body throws is rethrown here. Not
  /// reentrant: bodies must not call it. What a body computes must not depend on `thread`, so that results are the
  /// same with any number of threads.
  void parallel_for(size_t count, const std::function<void(size_t index, int thread)>& body);

 private:
  struct State;
  std::unique_ptr<State> state_;
  int threads_;
};

}  // namespace fathom
