#include "memory/page_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <iterator>
#include <map>
#include <random>
#include <set>
#include <thread>
#include <type_traits>

#include "allocation_limit.h"
#include "seed.h"

namespace fathom {
namespace {

using test::with_each_failing_allocation;

constexpr size_t kRun = PageTable::kRun;
constexpr PageShape kTableShape{PageFormat::kBF16, 4, 4};

/// Returns a table of full pages.
PageTable filled_table(PageStore& store, size_t entries) {
  PageTable table(store);
  for (size_t i = 0; i < entries; ++i)
    table.push_back({kNoPage, kPageTokens, static_cast<int64_t>(64 * i), static_cast<int64_t>(64 * i), 1 + i},
                    store.allocate());
  return table;
}

/// Returns whether two tables share the run of entry i.
bool shared(const PageTable& a, const PageTable& b, size_t i) { return &a[i] == &b[i]; }

/// Returns PageEntry::first of all entries.
std::vector<int64_t> firsts(const PageTable& table) {
  std::vector<int64_t> all;
  for (const PageEntry& entry : table) all.push_back(entry.first);
  return all;
}

TEST(PageTable, HoldsAppendedEntries) {
  PageStore store(kTableShape);
  {
    PageTable table(store);
    EXPECT_TRUE(table.empty());
    std::vector<PageId> pages;
    for (size_t i = 0; i < 3 * kRun + 5; ++i) {
      PageRef page = store.allocate();
      pages.push_back(page.get());
      table.push_back({kNoPage, 7, static_cast<int64_t>(i), static_cast<int64_t>(2 * i), 3 * i}, std::move(page));
      EXPECT_EQ(table.size(), i + 1);
      EXPECT_EQ(table.back().page, pages.back());
    }
    for (size_t i = 0; i < pages.size(); ++i) {
      EXPECT_EQ(table[i].page, pages[i]);
      EXPECT_EQ(table[i].filled, 7);
      EXPECT_EQ(table[i].first, i);
      EXPECT_EQ(table[i].position, 2 * i);
      EXPECT_EQ(table[i].mask, 3 * i);
      EXPECT_EQ(store.owners(pages[i]), 1u);
    }
    EXPECT_EQ(table.front().page, pages[0]);
    table.push_back({}, {});
    EXPECT_EQ(table.back().page, kNoPage);
    EXPECT_EQ(store.bytes_in_use(), pages.size() * store.shape().bytes());
  }
  EXPECT_EQ(store.bytes_in_use(), 0u) << "a table releases its pages";
}

TEST(PageTable, ForksShareRunsAndPages) {
  PageStore store(kTableShape);
  const PageTable trunk = filled_table(store, 5 * kRun + 3);
  const size_t bytes = store.bytes_in_use(), before = test::allocated_bytes();
  const PageTable fork(trunk);
  EXPECT_LE(test::allocated_bytes() - before, 6 * 2 * sizeof(void*)) << "one pointer per run";
  EXPECT_EQ(store.bytes_in_use(), bytes);
  for (size_t i = 0; i < trunk.size(); ++i) {
    EXPECT_TRUE(shared(trunk, fork, i)) << i;
    EXPECT_EQ(store.owners(trunk[i].page), 1u) << "the shared run is the only owner";
  }
}

TEST(PageTable, WritingCopiesOneRun) {
  PageStore store(kTableShape);
  PageTable trunk = filled_table(store, 5 * kRun + 3);
  const std::vector<int64_t> before = firsts(trunk);
  for (const size_t written : {size_t{0}, 2 * kRun + 7, 5 * kRun + 2}) {
    PageTable fork(trunk);
    fork.edit(written).first = -1;
    for (size_t i = 0; i < trunk.size(); ++i) {
      const bool own = i / kRun == written / kRun;
      EXPECT_EQ(shared(trunk, fork, i), !own) << i;
      EXPECT_EQ(fork[i].page, trunk[i].page);
      EXPECT_EQ(store.owners(trunk[i].page), own ? 2u : 1u);
    }
    EXPECT_EQ(firsts(trunk), before);
    EXPECT_EQ(fork[written].first, -1);
    const PageEntry* at = &fork[written];
    fork.edit(written).first = -2;
    EXPECT_EQ(&fork[written], at) << "an unshared run is written in place";
  }
  const PageEntry* at = &trunk[0];
  trunk.edit(0).mask = 9;
  EXPECT_EQ(&trunk[0], at) << "all forks were destroyed";
  for (const PageEntry& entry : trunk) EXPECT_EQ(store.owners(entry.page), 1u);
}

TEST(PageTable, ForksAppendIndependently) {
  PageStore store(kTableShape);
  for (const size_t entries : {kRun - 1, kRun, kRun + 1}) {
    PageTable trunk = filled_table(store, entries);
    PageTable fork(trunk);
    fork.push_back({kNoPage, 1, -5, 0, 0}, store.allocate());
    trunk.push_back({kNoPage, 1, -7, 0, 0}, store.allocate());
    EXPECT_EQ(fork.size(), entries + 1);
    EXPECT_EQ(trunk.size(), entries + 1);
    EXPECT_EQ(fork.back().first, -5);
    EXPECT_EQ(trunk.back().first, -7);
    EXPECT_EQ(store.bytes_in_use(), (entries + 2) * store.shape().bytes());
  }
  EXPECT_EQ(store.bytes_in_use(), 0u);
}

TEST(PageTable, TruncatingInsideASharedRunDoesNotChangeTheOtherTable) {
  PageStore store(kTableShape);
  const PageTable trunk = filled_table(store, 4 * kRun + 9);
  const std::vector<int64_t> before = firsts(trunk);
  for (const size_t kept : {size_t{0}, size_t{1}, kRun - 1, kRun, kRun + 1, 3 * kRun, 4 * kRun + 8, 4 * kRun + 9}) {
    SCOPED_TRACE(kept);
    PageTable fork(trunk);
    fork.truncate(kept);
    EXPECT_EQ(fork.size(), kept);
    EXPECT_EQ(firsts(trunk), before);
    for (size_t i = 0; i < trunk.size(); ++i) {
      const bool copied = kept < trunk.size() && i < kept && i / kRun == kept / kRun;
      EXPECT_EQ(store.owners(trunk[i].page), copied ? 2u : 1u) << i;
      if (i < kept) {
        EXPECT_EQ(fork[i].page, trunk[i].page);
        EXPECT_EQ(shared(fork, trunk, i), !copied);
      }
    }
    fork.push_back({kNoPage, 1, -5, 0, 0}, store.allocate());
    EXPECT_EQ(fork[kept].first, -5);
    EXPECT_EQ(firsts(trunk), before);
  }
}

TEST(PageTable, TruncatingReleasesThePagesOfRemovedEntries) {
  PageStore store(kTableShape);
  PageTable table = filled_table(store, 3 * kRun);
  const PageEntry* at = &table[0];
  for (const size_t kept : {3 * kRun, 3 * kRun - 1, 2 * kRun, kRun + 3, size_t{5}, size_t{0}}) {
    table.truncate(kept);
    EXPECT_EQ(table.size(), kept);
    EXPECT_EQ(store.bytes_in_use(), kept * store.shape().bytes());
    if (kept > 0) {
      EXPECT_EQ(&table[0], at) << "in place";
    }
  }
  table.truncate(9);
  EXPECT_TRUE(table.empty());
}

TEST(PageTable, SetPageChangesOnlyOneFork) {
  PageStore store(kTableShape);
  PageTable trunk = filled_table(store, 10);
  PageTable fork(trunk);
  const PageId old = trunk[4].page;
  fork.set_page(4, store.allocate());
  EXPECT_NE(fork[4].page, old);
  EXPECT_EQ(trunk[4].page, old);
  EXPECT_EQ(store.owners(old), 1u);
  fork.set_page(4, {});
  EXPECT_EQ(fork[4].page, kNoPage);
  EXPECT_EQ(store.bytes_in_use(), 10 * store.shape().bytes());
  trunk.set_page(4, {});
  EXPECT_EQ(store.bytes_in_use(), 9 * store.shape().bytes());
}

TEST(PageTable, MovingAndAssigningTransferThePages) {
  PageStore store(kTableShape);
  PageTable a = filled_table(store, 40), b = filled_table(store, 3);
  const std::vector<int64_t> before = firsts(a);
  b = a;
  EXPECT_EQ(store.bytes_in_use(), 40 * store.shape().bytes());
  EXPECT_TRUE(shared(a, b, 39));
  b = *&b;
  EXPECT_EQ(firsts(b), before);
  const PageTable c = std::move(a);
  EXPECT_EQ(firsts(c), before);
  EXPECT_TRUE(a.empty());
  a.push_back({kNoPage, 1, 5, 5, 1}, store.allocate());  // a moved-from table can be reused
  EXPECT_EQ(a.back().first, 5);
  b = std::move(a);
  EXPECT_EQ(firsts(b), (std::vector<int64_t>{5}));
  EXPECT_EQ(store.bytes_in_use(), 41 * store.shape().bytes());
}

TEST(PageTable, OperationsWithoutMemoryChangeNothing) {
  PageStore store(kTableShape);
  PageTable trunk = filled_table(store, 2 * kRun + 4);
  const std::vector<int64_t> before = firsts(trunk);
  const size_t bytes = store.bytes_in_use();
  PageTable fork(trunk);
  const auto expect_nothing_changed = [&] {
    EXPECT_EQ(firsts(fork), before);
    EXPECT_EQ(firsts(trunk), before);
    EXPECT_EQ(store.bytes_in_use(), bytes);
    for (const PageEntry& entry : trunk) EXPECT_EQ(store.owners(entry.page), 1u);
  };
  with_each_failing_allocation([&] { fork.edit(3).first = 99; }, expect_nothing_changed);
  fork = trunk;
  with_each_failing_allocation([&] { fork.set_page(3, {}); }, expect_nothing_changed);
  fork = trunk;
  with_each_failing_allocation([&] { fork.truncate(kRun + 3); }, expect_nothing_changed);
  fork = trunk;
  with_each_failing_allocation([&] { fork.push_back({}, {}); }, expect_nothing_changed);
  fork = trunk;
  with_each_failing_allocation([&] { const PageTable copy(trunk); }, expect_nothing_changed);
  trunk.truncate(2 * kRun);
  fork = trunk;
  const size_t fewer = store.bytes_in_use();
  with_each_failing_allocation([&] { fork.push_back({}, PageRef()); },
                               [&] {
                                 EXPECT_EQ(fork.size(), 2 * kRun);
                                 EXPECT_EQ(store.bytes_in_use(), fewer);
                               });
}

TEST(PageTable, HasRandomAccessIterators) {
  static_assert(std::random_access_iterator<PageTable::Iterator>);
  static_assert(std::is_same_v<std::iter_reference_t<PageTable::Iterator>, const PageEntry&>);
  PageStore store(kTableShape);
  const PageTable table = filled_table(store, 2 * kRun + 5);
  const auto n = static_cast<std::ptrdiff_t>(table.size());
  EXPECT_EQ(table.end() - table.begin(), n);
  EXPECT_EQ(std::ranges::distance(table), n);
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    EXPECT_EQ(&table.begin()[i], &table[i]);
    EXPECT_EQ(&*(table.begin() + i), &table[i]);
    EXPECT_EQ(&*(i + table.begin()), &table[i]);
    EXPECT_EQ(&*(table.end() - (n - i)), &table[i]);
    EXPECT_EQ((table.begin() + i)->first, 64 * i);
    EXPECT_LT(table.begin() + i, table.end());
  }
  auto it = table.begin();
  EXPECT_EQ((it++)->first, 0);
  EXPECT_EQ((++it)->first, 128);
  EXPECT_EQ((it--)->first, 128);
  EXPECT_EQ((--it)->first, 0);
  it += 40;
  it -= 5;
  EXPECT_EQ(it->first, 35 * 64);
  EXPECT_EQ(std::ranges::lower_bound(table, 33 * 64, {}, &PageEntry::first)->first, 33 * 64);
  EXPECT_EQ(std::ranges::upper_bound(table, 33 * 64 + 5, {}, &PageEntry::first)->first, 34 * 64);
  EXPECT_EQ(std::count_if(table.begin(), table.end(), [](const PageEntry& e) { return e.first >= 640; }), n - 10);
  const PageTable none(store);
  EXPECT_EQ(none.begin(), none.end());
}

/// Applies random operations to forks of a page table and to lists of entries that model them.
class PageTableOperations {
 public:
  explicit PageTableOperations(uint32_t seed) : random_(seed) { pairs_.push_back({PageTable(store_), {}}); }

  void one() {
    Pair& p = pairs_[below(pairs_.size())];
    switch (below(12)) {
      case 0:
        if (pairs_.size() < 6) {
          Pair copy(p);
          pairs_.push_back(std::move(copy));
        }
        return;
      case 1:
        if (pairs_.size() > 1) pairs_.erase(pairs_.begin() + static_cast<std::ptrdiff_t>(below(pairs_.size())));
        return;
      case 2: {
        Pair& other = pairs_[below(pairs_.size())];
        other = p;
        return;
      }
      case 3: {
        const size_t n = p.plain.empty() ? 0 : below(p.plain.size() + 1);
        p.table.truncate(n);
        p.plain.resize(n);
        return;
      }
      case 4:
      case 5:
        return edit(p);
      case 6:
        return set_page(p);
      default:
        return append(p);
    }
  }

  void expect_all() const {
    std::map<PageId, std::set<const PageEntry*>> owners;  // page to its entries in different runs
    for (const Pair& p : pairs_) {
      ASSERT_EQ(p.table.size(), p.plain.size());
      ASSERT_EQ(p.table.empty(), p.plain.empty());
      for (size_t i = 0; i < p.plain.size(); ++i) {
        const PageEntry &found = p.table[i], &expected = p.plain[i];
        ASSERT_EQ(found.page, expected.page) << i;
        ASSERT_EQ(found.filled, expected.filled) << i;
        ASSERT_EQ(found.first, expected.first) << i;
        ASSERT_EQ(found.position, expected.position) << i;
        ASSERT_EQ(found.mask, expected.mask) << i;
        if (found.page != kNoPage) owners[found.page].insert(&found);
      }
    }
    for (const auto& [page, entries] : owners) ASSERT_EQ(store_.owners(page), entries.size()) << page;
    ASSERT_EQ(store_.bytes_in_use(), owners.size() * store_.shape().bytes());
  }

  size_t bytes_after_clear() {
    pairs_.clear();
    return store_.bytes_in_use();
  }

 private:
  struct Pair {
    PageTable table;
    std::vector<PageEntry> plain;
  };
  size_t below(size_t n) { return random_() % n; }
  PageEntry any_entry() {
    PageEntry entry;
    entry.filled = static_cast<int>(below(65));
    entry.first = static_cast<int64_t>(below(100000));
    entry.position = static_cast<int64_t>(below(100000));
    entry.mask = random_();
    return entry;
  }
  /// Returns no page, a new page, or a page that some table already has.
  PageRef any_page() {
    if (below(8) == 0) return {};
    const Pair& p = pairs_[below(pairs_.size())];
    if (below(4) > 0 || p.plain.empty()) return store_.allocate();
    const PageId page = p.plain[below(p.plain.size())].page;
    if (page == kNoPage) return {};
    store_.retain(page);
    return {store_, page};
  }
  void append(Pair& p) {
    for (size_t n = 1 + below(20); n-- > 0;) {
      PageEntry entry = any_entry();
      PageRef page = any_page();
      const PageId id = page.get();
      p.table.push_back(entry, std::move(page));
      entry.page = id;
      p.plain.push_back(entry);
    }
  }
  void edit(Pair& p) {
    if (p.plain.empty()) return;
    const size_t i = below(p.plain.size());
    PageEntry entry = any_entry();
    entry.page = p.plain[i].page;
    p.table.edit(i) = p.plain[i] = entry;
  }
  void set_page(Pair& p) {
    if (p.plain.empty()) return;
    const size_t i = below(p.plain.size());
    PageRef page = any_page();
    p.plain[i].page = page.get();
    p.table.set_page(i, std::move(page));
  }

  std::mt19937_64 random_;
  PageStore store_{kTableShape};
  std::vector<Pair> pairs_;
};

TEST(PageTable, RandomOperationsMatchAListModel) {
  for (int round = 0; round < 10; ++round) {
    PageTableOperations operations(test::seed(1));
    for (int n = 0; n < 400; ++n) {
      operations.one();
      ASSERT_NO_FATAL_FAILURE(operations.expect_all()) << "after operation " << n;
    }
    EXPECT_EQ(operations.bytes_after_clear(), 0u);
  }
}

TEST(PageTable, ForksOnManyThreadsAreIndependent) {
  PageStore store(kTableShape);
  {
    const PageTable trunk = filled_table(store, 4 * kRun);
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&, fork = PageTable(trunk), t]() mutable {
        std::mt19937 random(test::seed(t));
        std::vector<int64_t> expected = firsts(fork);
        for (int n = 0; n < 300; ++n) {
          const size_t i = random() % fork.size();
          fork.edit(i).first = expected[i] = 1000 * (t + 1) + n;
          if (n % 50 == 0) fork.set_page(i, store.allocate());
          PageTable copy(fork);
          if (n % 3 == 0) std::swap(copy, fork);
          if (firsts(fork) != expected) ++wrong;
        }
        fork.truncate(5);
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(wrong, 0);
    threads.clear();
    for (const PageEntry& entry : trunk) EXPECT_EQ(store.owners(entry.page), 1u);
    EXPECT_EQ(store.bytes_in_use(), trunk.size() * store.shape().bytes());
  }
  EXPECT_EQ(store.bytes_in_use(), 0u);
}

}  // namespace
}  // namespace fathom
