#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <vector>

#include "base/error.h"

namespace fathom {
namespace {

class ThreadPoolSize : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolSize, ::testing::Values(1, 2, 3, 8));

TEST_P(ThreadPoolSize, EveryIndexRunsOnceOnAThreadOfThePool) {
  ThreadPool pool(GetParam());
  EXPECT_EQ(pool.threads(), GetParam());
  for (const size_t count : {0, 1, 2, 3, 7, 64, 1000, 100000}) {
    std::vector<int> runs(count, 0);
    std::atomic<bool> invalid_thread{false};
    pool.parallel_for(count, [&](size_t index, int thread) {
      ++runs[index];
      if (thread < 0 || thread >= GetParam()) invalid_thread = true;
    });
    EXPECT_EQ(runs, std::vector<int>(count, 1));
    EXPECT_FALSE(invalid_thread);
  }
}

TEST_P(ThreadPoolSize, ThreadNumberIsUsedByOneThreadAtATime) {
  ThreadPool pool(GetParam());
  std::vector<std::atomic<int>> inside(GetParam());
  std::atomic<bool> shared{false};
  for (int round = 0; round < 100; ++round) {
    pool.parallel_for(100, [&](size_t, int thread) {
      if (inside[thread].fetch_add(1) != 0) shared = true;
      inside[thread].fetch_sub(1);
    });
  }
  EXPECT_FALSE(shared);
}

TEST_P(ThreadPoolSize, EachJobReadsTheWritesOfEarlierJobs) {
  ThreadPool pool(GetParam());
  // Not atomic, so that only the pool makes the writes of one job visible to all threads of the next job.
  constexpr size_t kSize = 97;
  std::vector<int64_t> now(kSize), next(kSize);
  std::iota(now.begin(), now.end(), 0);
  std::vector<int64_t> expected_now = now, expected_next(kSize);
  const auto step = [](const std::vector<int64_t>& from, std::vector<int64_t>& to, size_t i) {
    to[i] = (from[i] * 3 + from[(i + 1) % kSize] + from[(i * 7) % kSize]) % 1000003;
  };
  for (int round = 0; round < 5000; ++round) {
    pool.parallel_for(kSize, [&](size_t i, int) { step(now, next, i); });
    std::swap(now, next);
    for (size_t i = 0; i < kSize; ++i) step(expected_now, expected_next, i);
    std::swap(expected_now, expected_next);
  }
  EXPECT_EQ(now, expected_now);
}

TEST_P(ThreadPoolSize, ManyTinyJobsComplete) {
  ThreadPool pool(GetParam());
  std::atomic<int64_t> sum{0};
  int64_t expected = 0;
  for (int job = 0; job < 20000; ++job) {
    const size_t count = job % 5;
    expected += static_cast<int64_t>(count);
    pool.parallel_for(count, [&](size_t, int) { sum.fetch_add(1, std::memory_order_relaxed); });
    ASSERT_EQ(sum.load(std::memory_order_relaxed), expected) << "job " << job;
  }
}

TEST_P(ThreadPoolSize, JobsCompleteAfterWorkersSleep) {
  ThreadPool pool(GetParam());
  for (int job = 0; job < 50; ++job) {
    std::this_thread::sleep_for(
        std::chrono::microseconds(job * 10));  // long enough in some rounds for the workers to sleep
    std::vector<int> runs(GetParam() * 2, 0);
    pool.parallel_for(runs.size(), [&](size_t index, int) {
      if (index == 0)
        std::this_thread::sleep_for(std::chrono::microseconds(200));  // long enough for the caller to sleep
      ++runs[index];
    });
    EXPECT_EQ(runs, std::vector<int>(runs.size(), 1));
  }
}

TEST_P(ThreadPoolSize, RethrowsAnExceptionAndSkipsTheRest) {
  ThreadPool pool(GetParam());
  constexpr size_t kCount = 10'000'000;
  for (int round = 0; round < 50; ++round) {
    std::atomic<size_t> runs{0};
    try {
      pool.parallel_for(kCount, [&](size_t index, int) {
        ++runs;
        if (index == 3) throw Error("third");
      });
      FAIL() << "no exception";
    } catch (const Error& error) {
      EXPECT_STREQ(error.what(), "third");
    }
    EXPECT_GE(runs, 1u);
    EXPECT_LT(runs, kCount);
    // The pool remains usable.
    std::vector<int> after(10, 0);
    pool.parallel_for(10, [&](size_t index, int) { ++after[index]; });
    EXPECT_EQ(after, std::vector<int>(10, 1));
  }
}

TEST_P(ThreadPoolSize, RethrowsOneOfManyExceptions) {
  ThreadPool pool(GetParam());
  for (int round = 0; round < 500; ++round) {
    EXPECT_THROW(pool.parallel_for(20, [](size_t, int) { throw std::runtime_error("each"); }), std::runtime_error);
    EXPECT_THROW(pool.parallel_for(1, [](size_t, int) { throw 7; }), int);
  }
}

TEST_P(ThreadPoolSize, PoolsCanBeCreatedRepeatedly) {
  for (int round = 0; round < 200; ++round) {
    ThreadPool pool(GetParam());
    if (round % 2) {
      std::atomic<int> runs{0};
      pool.parallel_for(round, [&](size_t, int) { ++runs; });
      EXPECT_EQ(runs, round);
    }
  }
}

TEST(ThreadPool, TwoThreadsWorkAtTheSameTime) {
  ThreadPool pool(2);
  std::atomic<int> arrived{0};
  // Each index waits for the other, so one thread alone would never finish.
  pool.parallel_for(2, [&](size_t, int) {
    ++arrived;
    while (arrived < 2) std::this_thread::yield();
  });
  EXPECT_EQ(arrived, 2);
}

TEST(ThreadPool, SingleIndexRunsOnTheCallingThread) {
  ThreadPool pool(4);
  std::thread::id ran_on;
  pool.parallel_for(1, [&](size_t, int thread) {
    ran_on = std::this_thread::get_id();
    EXPECT_EQ(thread, 0);
  });
  EXPECT_EQ(ran_on, std::this_thread::get_id());
}

TEST(ThreadPool, PoolsAreIndependent) {
  std::atomic<int> runs{0};
  const auto use = [&] {
    ThreadPool pool(2);
    for (int job = 0; job < 500; ++job) pool.parallel_for(3, [&](size_t, int) { ++runs; });
  };
  std::thread other(use);
  use();
  other.join();
  EXPECT_EQ(runs, 3000);
}

TEST(ThreadPool, FewerThanOneThreadIsAUsageError) {
  for (const int threads : {0, -1}) {
    try {
      ThreadPool pool(threads);
      FAIL() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), Error::Kind::kUsage);
    }
  }
}

}  // namespace
}  // namespace fathom
