#include "memory/page_store.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <fstream>
#include <new>
#include <random>
#include <set>
#include <thread>

#include "allocation_limit.h"
#include "base/error.h"
#include "memory/paged_kv.h"
#include "seed.h"

namespace fathom {
namespace {

const PageShape kSmall{PageFormat::kBF16, 16, 24};

/// Returns whether all bytes of a page equal `value`.
bool all_bytes(const PageStore& store, PageId page, std::byte value) {
  const std::byte* bytes = store.keys(page);
  return std::all_of(bytes, bytes + store.shape().bytes(), [&](std::byte b) { return b == value; });
}

TEST(PageShape, SizesFollowFromDimensionsAndFormat) {
  const PageShape f32{PageFormat::kF32, 16, 24};
  EXPECT_EQ(kSmall.key_bytes(), 16u * 64 * 2);
  EXPECT_EQ(kSmall.value_bytes(), 24u * 64 * 2);
  EXPECT_EQ(f32.key_bytes(), 16u * 64 * 4);
  EXPECT_EQ(f32.bytes(), 40u * 64 * 4);
}

TEST(PageStore, CountsBytesOfPagesInUse) {
  PageStore store(kSmall);
  EXPECT_EQ(store.bytes_in_use(), 0u);
  const PageId a = store.allocate().detach(), b = store.allocate().detach();
  EXPECT_NE(a, b);
  EXPECT_EQ(store.bytes_in_use(), 2 * kSmall.bytes());
  store.retain(a);
  EXPECT_EQ(store.bytes_in_use(), 2 * kSmall.bytes());
  store.release(a);
  store.release(b);
  EXPECT_EQ(store.bytes_in_use(), kSmall.bytes());
  store.release(a);
  EXPECT_EQ(store.bytes_in_use(), 0u);
}

TEST(PageStore, AReferenceReleasesItsPageUnlessItIsDetached) {
  PageStore store(kSmall);
  {
    PageRef a = store.allocate(), b = store.allocate();
    const PageId kept = a.get();
    PageRef moved = std::move(a);
    EXPECT_EQ(a.get(), kNoPage);
    EXPECT_EQ(moved.get(), kept);
    b = std::move(moved);  // releases the page of b
    EXPECT_EQ(b.get(), kept);
  }
  EXPECT_EQ(store.bytes_in_use(), 0u);
  const PageId page = store.allocate().detach();
  EXPECT_EQ(store.owners(page), 1u);
  store.retain(page);
  EXPECT_EQ(store.owners(page), 2u);
  { const PageRef one(store, page); }
  EXPECT_EQ(store.owners(page), 1u);
  store.release(page);
  EXPECT_EQ(store.bytes_in_use(), 0u);
}

TEST(PageStore, PagesAreSharedWhileTheyHaveSeveralOwners) {
  PageStore store(kSmall);
  const PageId page = store.allocate().detach();
  EXPECT_FALSE(store.shared(page));
  store.retain(page);
  store.retain(page);
  EXPECT_TRUE(store.shared(page));
  store.release(page);
  EXPECT_TRUE(store.shared(page));
  store.release(page);
  EXPECT_FALSE(store.shared(page));
  store.release(page);
}

TEST(PageStore, ReusedPagesAreZeroedAndHaveOneOwner) {
  PageStore store(kSmall);
  const PageId page = store.allocate().detach();
  store.retain(page);
  std::memset(store.keys(page), 0xff, kSmall.bytes());  // NaN in both formats
  store.release(page);
  store.release(page);
  const PageId reused = store.allocate().detach();
  EXPECT_EQ(reused, page);
  EXPECT_FALSE(store.shared(reused));
  EXPECT_TRUE(all_bytes(store, reused, std::byte{0}));
  store.release(reused);
}

TEST(PageStore, ThousandsOfPagesOverManySlabsDoNotOverlap) {
  PageStore store(kSmall);  // 5 KiB per page, about 800 pages per slab
  std::vector<PageId> pages(5000);
  for (size_t i = 0; i < pages.size(); ++i) {
    pages[i] = store.allocate().detach();
    std::memset(store.keys(pages[i]), static_cast<int>(i % 251), kSmall.bytes());
  }
  EXPECT_EQ(std::set<PageId>(pages.begin(), pages.end()).size(), pages.size());
  EXPECT_EQ(store.bytes_in_use(), pages.size() * kSmall.bytes());
  for (size_t i = 0; i < pages.size(); ++i) {
    EXPECT_TRUE(all_bytes(store, pages[i], static_cast<std::byte>(i % 251))) << i;
    EXPECT_EQ(store.values(pages[i]), store.keys(pages[i]) + kSmall.key_bytes());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(store.keys(pages[i])) % 64, 0u) << "pages begin at cache lines";
  }
  for (const PageId page : pages) store.release(page);
  EXPECT_EQ(store.bytes_in_use(), 0u);
}

TEST(PageStore, PagesLargerThanASlabGetTheirOwnSlabs) {
  const PageShape large{PageFormat::kF32, 16384, 16384};  // 8 MiB
  PageStore store(large);
  const PageId a = store.allocate().detach(), b = store.allocate().detach();
  std::memset(store.keys(a), 1, large.bytes());
  EXPECT_TRUE(all_bytes(store, b, std::byte{0}));
  store.release(a);
  store.release(b);
}

TEST(PageStore, AllocationErrorsNameTheSize) {
  int overcommit = 0;
  std::ifstream("/proc/sys/vm/overcommit_memory") >> overcommit;
  if (overcommit == 1) GTEST_SKIP() << "this system overcommits memory";
  PageStore store({PageFormat::kF32, 1 << 30, 1 << 30});  // 512 GiB per page
  for (int attempt = 0; attempt < 2; ++attempt) {         // the second attempt follows a failure
    try {
      store.allocate();
      FAIL() << "512 GiB were allocated";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("549755813888"), std::string::npos) << error.what();
    }
  }
  EXPECT_EQ(store.bytes_in_use(), 0u);
}

TEST(PageStore, FailedAllocationsChangeNothing) {
  bool failed = true;
  for (int allocations = 0; failed; ++allocations) {
    PageStore store(kSmall);
    PageId page = kNoPage;
    try {
      const test::AllocationLimit limit(allocations);
      page = store.allocate().detach();
      failed = false;
    } catch (const std::bad_alloc&) {
      EXPECT_EQ(store.bytes_in_use(), 0u) << allocations;
      page = store.allocate().detach();
    }
    EXPECT_EQ(page, 0u) << "no page was lost";
    EXPECT_EQ(store.bytes_in_use(), kSmall.bytes());
    store.release(page);
    ASSERT_TRUE(allocations > 0 || failed) << "no allocation failed, so nothing was tested";
  }
}

TEST(PageStore, ReleaseAllocatesNothing) {
  PageStore store(kSmall);
  static_assert(noexcept(store.release(0)));
  std::vector<PageId> pages(5000);  // several slabs
  for (PageId& page : pages) page = store.allocate().detach();
  const test::AllocationLimit limit(0);
  for (const PageId page : pages) store.release(page);
  EXPECT_EQ(store.bytes_in_use(), 0u);
}

TEST(PageStore, OwnersOnManyThreadsLoseNoPage) {
  PageStore store(kSmall);
  std::vector<PageId> common(64);
  for (PageId& page : common) page = store.allocate().detach();
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(test::seed(t));
      std::vector<PageId> own;
      for (int n = 0; n < 4000; ++n) {
        const PageId page = common[random() % common.size()];
        store.retain(page);
        if (!store.shared(page)) ++wrong;
        if (own.size() < 50 && random() % 2) {
          own.push_back(store.allocate().detach());
          if (!all_bytes(store, own.back(), std::byte{0})) ++wrong;
          std::memset(store.keys(own.back()), t + 1, kSmall.bytes());
        } else if (!own.empty()) {
          if (!all_bytes(store, own.back(), static_cast<std::byte>(t + 1))) ++wrong;
          store.release(own.back());
          own.pop_back();
        }
        store.release(page);
      }
      for (const PageId page : own) store.release(page);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(store.bytes_in_use(), common.size() * kSmall.bytes());
  for (const PageId page : common) {
    EXPECT_FALSE(store.shared(page));
    store.release(page);
  }
  EXPECT_EQ(store.bytes_in_use(), 0u);
}

TEST(PageBits, EqualABitwiseReferenceForAllBounds) {
  for (int64_t begin = -70; begin <= 70; ++begin) {
    for (int64_t end = -70; end <= 140; ++end) {
      uint64_t expected = 0;
      for (int64_t bit = 0; bit < 64; ++bit) expected |= static_cast<uint64_t>(bit >= begin && bit < end) << bit;
      ASSERT_EQ(page_bits(begin, end), expected) << begin << " " << end;
    }
  }
  constexpr int64_t kFar = int64_t{1} << 60;
  EXPECT_EQ(page_bits(-kFar, kFar), ~uint64_t{0});
  EXPECT_EQ(page_bits(kFar, 64), 0u);
  EXPECT_EQ(page_bits(0, -kFar), 0u);
}

}  // namespace
}  // namespace fathom
