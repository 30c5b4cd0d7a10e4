#include "memory/memory_budget.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <mutex>
#include <random>
#include <thread>

#include "base/error.h"
#include "memory/page_pool.h"
#include "seed.h"
#include "token_pages.h"

namespace fathom {
namespace {

constexpr size_t kKiB = 1024;
constexpr PageShape kShape{PageFormat::kBF16, 64, 64};  // 16 KiB per page

/// Returns the message of the out-of-memory Error that `action` throws; empty: none.
template <class Action>
std::string out_of_memory_error(const Action& action) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Error::Kind::kOutOfMemory) << error.what();
    return error.what();
  }
  return "";
}

TEST(MemoryBudget, TakesUpToItsLimit) {
  MemoryBudget budget(100);
  EXPECT_EQ(budget.limit(), 100u);
  budget.take(60);
  budget.take(40);
  budget.take(0);
  EXPECT_EQ(budget.in_use(), 100u);
  EXPECT_THROW(budget.take(1), Error);
  EXPECT_FALSE(budget.try_take(1));
  EXPECT_TRUE(budget.try_take(0));
  EXPECT_EQ(budget.in_use(), 100u) << "a failed take takes nothing";
  budget.release(40);
  EXPECT_FALSE(budget.try_take(41));
  EXPECT_TRUE(budget.try_take(40));
  EXPECT_EQ(budget.in_use(), 100u);
}

TEST(MemoryBudget, ZeroMeansNoLimitAndBytesAreCounted) {
  MemoryBudget budget;
  budget.take(size_t{1} << 50);
  EXPECT_TRUE(budget.try_take(size_t{1} << 50));
  EXPECT_EQ(budget.in_use(), size_t{2} << 50);
  budget.release(size_t{2} << 50);
  EXPECT_EQ(budget.in_use(), 0u);
}

TEST(MemoryBudget, SizesThatWouldOverflowDoNotFit) {
  MemoryBudget budget(100);
  budget.take(10);
  for (const size_t bytes : {std::numeric_limits<size_t>::max(), std::numeric_limits<size_t>::max() - 5})
    EXPECT_FALSE(budget.try_take(bytes));
  EXPECT_EQ(budget.in_use(), 10u);
}

TEST(MemoryBudget, TheErrorNamesTheBudgetAndTheOption) {
  MemoryBudget budget(64 * kKiB);
  budget.take(48 * kKiB);
  EXPECT_EQ(out_of_memory_error([&] { budget.take(32 * kKiB); }),
            "out of memory: the budget of 64 KiB (--memory) has 48 KiB in use, and 32 KiB more are needed");
  MemoryBudget other(kKiB, "--checkpoints");
  EXPECT_EQ(out_of_memory_error([&] { other.take(2 * kKiB); }),
            "out of memory: the budget of 1 KiB (--checkpoints) has 0 B in use, and 2 KiB more are needed");
}

TEST(MemoryBudget, ReclaimsUntilTheRequestFits) {
  MemoryBudget budget(100);
  int calls = 0, reclaimable = 5;  // items of 20 bytes
  budget.set_reclaimer([&] {
    ++calls;
    if (reclaimable == 0) return false;
    --reclaimable;
    budget.release(20);
    return true;
  });
  budget.take(100);
  EXPECT_EQ(calls, 0) << "the bytes fit";
  budget.take(50);
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(budget.in_use(), 90u);
  EXPECT_FALSE(budget.try_take(50));
  EXPECT_EQ(calls, 3) << "try_take does not reclaim";
  EXPECT_EQ(out_of_memory_error([&] { budget.take(70); }),
            "out of memory: the budget of 100 B (--memory) has 50 B in use, and 70 B more are needed");
  EXPECT_EQ(calls, 6) << "two more calls freed bytes, the third did not";
  EXPECT_EQ(budget.in_use(), 50u);
}

TEST(BudgetCharge, IsReleasedOnce) {
  const auto budget = std::make_shared<MemoryBudget>(100);
  {
    BudgetCharge charge(budget, 60);
    EXPECT_EQ(charge.bytes(), 60u);
    EXPECT_EQ(budget->in_use(), 60u);
    EXPECT_THROW(BudgetCharge(budget, 50), Error);
    EXPECT_EQ(budget->in_use(), 60u);
    BudgetCharge moved = std::move(charge);
    EXPECT_EQ(charge.bytes(), 0u);
    EXPECT_EQ(budget->in_use(), 60u);
    BudgetCharge other(budget, 30);
    other = std::move(moved);
    EXPECT_EQ(other.bytes(), 60u);
    other = {};
    EXPECT_EQ(budget->in_use(), 30u) << "the moved-from charge holds the other's bytes";
  }
  EXPECT_EQ(budget->in_use(), 0u);
  {
    BudgetCharge charge(budget, 10);
    charge.detach();
  }
  EXPECT_EQ(budget->in_use(), 10u) << "a detached charge releases nothing";
}

TEST(BudgetCharge, TryTakeReturnsAnEmptyChargeIfTheBytesDoNotFit) {
  const auto budget = std::make_shared<MemoryBudget>(100);
  const BudgetCharge fits = BudgetCharge::try_take(budget, 70), does_not_fit = BudgetCharge::try_take(budget, 40);
  EXPECT_EQ(fits.bytes(), 70u);
  EXPECT_EQ(does_not_fit.bytes(), 0u);
  EXPECT_EQ(budget->in_use(), 70u);
  EXPECT_EQ(BudgetCharge::try_take(nullptr, 1000).bytes(), 1000u) << "no budget: no limit";
  EXPECT_EQ(BudgetCharge(nullptr, 1000).bytes(), 1000u);
}

TEST(MemoryBudget, IsNeverExceededByManyThreads) {
  constexpr size_t kLimit = 1000;
  MemoryBudget budget(kLimit);
  std::atomic<size_t> held{0};  // bytes taken: added after take, subtracted before release
  std::atomic<int> wrong{0}, refused{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(test::seed(t));
      std::vector<size_t> own;
      for (int n = 0; n < 5000; ++n) {
        const size_t bytes = 1 + random() % 300;
        bool taken = true;
        if (random() % 2) {
          taken = budget.try_take(bytes);
        } else {
          try {
            budget.take(bytes);
          } catch (const Error&) {
            taken = false;
          }
        }
        if (taken) {
          own.push_back(bytes);
          if (held += bytes; held > kLimit) ++wrong;
        } else {
          ++refused;
        }
        if (budget.in_use() > kLimit) ++wrong;
        while (!own.empty() && (!taken || random() % 2)) {
          held -= own.back();
          budget.release(own.back());
          own.pop_back();
          taken = true;
        }
      }
      for (const size_t bytes : own) {
        held -= bytes;
        budget.release(bytes);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(refused, 0);
  EXPECT_EQ(budget.in_use(), 0u);
}

TEST(MemoryBudget, IsSharedByAllStoresOfAPool) {
  PagePool pool(5 * kShape.bytes());
  const auto store = pool.store(kShape);
  EXPECT_EQ(pool.store(kShape), store);
  const auto small = pool.store({PageFormat::kBF16, 32, 32});
  ASSERT_NE(small, store);
  std::vector<PageRef> pages;
  for (int i = 0; i < 4; ++i) pages.push_back(store->allocate());
  pages.push_back(small->allocate());
  pages.push_back(small->allocate());
  EXPECT_EQ(pool.budget()->in_use(), 5 * kShape.bytes());
  EXPECT_EQ(out_of_memory_error([&] { small->allocate(); }),
            "out of memory: the budget of 80 KiB (--memory) has 80 KiB in use, and 8 KiB more are needed");
  EXPECT_EQ(pool.budget()->in_use(), 5 * kShape.bytes());
  EXPECT_EQ(store->bytes_in_use(), 4 * kShape.bytes());
  pages.pop_back();
  EXPECT_THROW(store->allocate(), Error) << "only half a page is free";
  pages.push_back(small->allocate());
  pages.clear();
  EXPECT_EQ(pool.budget()->in_use(), 0u);
  for (int i = 0; i < 5; ++i) pages.push_back(store->allocate());
}

TEST(MemoryBudget, SharedPagesCountOnce) {
  const auto budget = std::make_shared<MemoryBudget>(10 * kShape.bytes());
  PageStore store(kShape, budget);
  const PageId page = store.allocate().detach();
  store.retain(page);
  store.retain(page);
  EXPECT_EQ(budget->in_use(), kShape.bytes());
  store.release(page);
  store.release(page);
  EXPECT_EQ(budget->in_use(), kShape.bytes());
  store.release(page);
  EXPECT_EQ(budget->in_use(), 0u);
}

TEST(MemoryBudget, PagesThatCannotBeAllocatedAreNotCharged) {
  const auto budget = std::make_shared<MemoryBudget>();
  PageStore store({PageFormat::kF32, 1 << 30, 1 << 30}, budget);  // 512 GiB a page
  try {
    const PageRef page = store.allocate();
    GTEST_SKIP() << "this system overcommits memory";
  } catch (const Error&) {
    EXPECT_EQ(budget->in_use(), 0u);
  }
}

TEST(MemoryBudget, TheReclaimerMayReleasePagesOfTheAllocatingStore) {
  const auto budget = std::make_shared<MemoryBudget>(3 * kShape.bytes());
  PageStore store(kShape, budget);
  std::vector<PageRef> cached, used;
  for (int i = 0; i < 3; ++i) cached.push_back(store.allocate());
  budget->set_reclaimer([&] {
    if (cached.empty()) return false;
    cached.pop_back();
    return true;
  });
  for (int i = 0; i < 3; ++i) used.push_back(store.allocate());
  EXPECT_TRUE(cached.empty());
  EXPECT_THROW(store.allocate(), Error);
  EXPECT_EQ(store.bytes_in_use(), 3 * kShape.bytes());
  budget->set_reclaimer({});
}

TEST(MemoryBudget, StatesOfMethodsAreCharged) {
  struct LargeState final : test::UnsavedState {
    explicit LargeState(size_t bytes) : size(bytes) {}
    std::unique_ptr<SequenceState> fork() const override { return std::make_unique<LargeState>(size); }
    void rewind(int64_t) override {}
    size_t bytes() const override { return size; }
    size_t size;
  };
  const auto budget = std::make_shared<MemoryBudget>(100);
  {
    Sequence sequence({}, {}, {}, budget);
    sequence.set_state(Sequence::StateOf::kSelector, std::make_unique<LargeState>(40));
    sequence.set_state(Sequence::StateOf::kEvictor, std::make_unique<LargeState>(20));
    sequence.open(test::following(0, 1));
    sequence.commit();
    EXPECT_EQ(budget->in_use(), 60u);
    sequence.set_state(Sequence::StateOf::kSelector, std::make_unique<LargeState>(81));
    EXPECT_NE(out_of_memory_error([&] { sequence.open(test::following(1, 1)); }), "");
    EXPECT_EQ(sequence.tokens(), 1);
    EXPECT_EQ(budget->in_use(), 60u);
    sequence.set_state(Sequence::StateOf::kSelector, std::make_unique<LargeState>(10));
    sequence.open(test::following(1, 1));
    sequence.commit();
    EXPECT_EQ(budget->in_use(), 30u);
    Sequence moved = std::move(sequence);
    EXPECT_EQ(budget->in_use(), 30u);
  }
  EXPECT_EQ(budget->in_use(), 0u);
}

TEST(MemoryBudget, ASequenceIsUnchangedWhenTheBudgetIsExhausted) {
  const PageShape shape{PageFormat::kF32, test::kKeyDim, test::kValueDim};
  const auto budget = std::make_shared<MemoryBudget>(11 * shape.bytes());
  const auto store = std::make_shared<PageStore>(shape, budget);
  {
    Sequence sequence = test::small_sequence(store, 2, 2);
    test::read_following(sequence, 100);  // two pages in each of four tables
    const auto expect_unchanged = [&](const Sequence& of) {
      EXPECT_EQ(of.tokens(), 100);
      EXPECT_EQ(of.next_position(), 100);
      EXPECT_EQ(of.ids().size(), 100);
      for (int t = 0; t < 4; ++t) {
        ASSERT_EQ(of.kv(t / 2).table(t % 2).size(), 2u);
        EXPECT_EQ(of.kv(t / 2).table(t % 2).back().filled, 36);
      }
      for (int64_t i = 0; i < 100; ++i)
        ASSERT_NO_FATAL_FAILURE(test::expect_token(*store, of.kv(1).table(1)[i / 64].page, i % 64, i, 3));
    };
    EXPECT_NE(out_of_memory_error([&] { sequence.open(test::following(100, 29)); }), "")
        << "needs four pages, three are free";
    expect_unchanged(sequence);
    EXPECT_EQ(budget->in_use(), 8 * shape.bytes());
    {
      Sequence fork = sequence.fork();  // a write must copy its last pages
      EXPECT_NE(out_of_memory_error([&] { fork.open(test::following(100, 1)); }), "");
      expect_unchanged(fork);
      expect_unchanged(sequence);
    }
    EXPECT_EQ(budget->in_use(), 8 * shape.bytes()) << "pages copied by the fork are released with it";
    test::read_following(sequence, 28);  // fits in the existing pages
    EXPECT_EQ(sequence.tokens(), 128);
  }
  EXPECT_EQ(budget->in_use(), 0u);
}

}  // namespace
}  // namespace fathom
