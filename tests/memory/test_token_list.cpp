// TokenList: token ids in shared blocks.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "allocation_limit.h"
#include "memory/sequence.h"
#include "seed.h"

namespace fathom {
namespace {

TEST(TokenList, RandomOperationsMatchAListModel) {
  std::mt19937 random(test::seed(1));
  struct Pair {
    TokenList list;
    std::vector<int32_t> plain;
  };
  std::vector<Pair> pairs(1);
  for (int n = 0; n < 1000; ++n) {
    Pair& p = pairs[random() % pairs.size()];
    switch (random() % 6) {
      case 0:
        if (pairs.size() < 5) {
          Pair copy(p);
          pairs.push_back(std::move(copy));
        } else {
          pairs.erase(pairs.begin() + static_cast<std::ptrdiff_t>(random() % 5));
        }
        break;
      case 1: {
        const size_t borders[] = {0, 1, 1023, 1024, 1025, 2048, random() % (p.plain.size() + 1)};
        const size_t kept = borders[random() % 7];
        p.list.truncate(static_cast<int64_t>(kept));
        if (kept < p.plain.size()) p.plain.resize(kept);
        break;
      }
      default: {
        const size_t counts[] = {0, 1, 1, 1023, 1024, 1025, random() % 3000};
        std::vector<int32_t> ids(counts[random() % 7]);
        for (int32_t& id : ids) id = static_cast<int32_t>(random() % 100000) - 1;
        p.list.append(ids);
        p.plain.insert(p.plain.end(), ids.begin(), ids.end());
      }
    }
    for (const Pair& one : pairs) {
      ASSERT_EQ(one.list.size(), std::ssize(one.plain));
      ASSERT_EQ(one.list.copy(0, one.list.size()), one.plain);
      if (one.plain.empty()) continue;
      const auto begin = static_cast<int64_t>(random() % one.plain.size());
      const int64_t end = begin + static_cast<int64_t>(random() % (one.plain.size() - begin + 1));
      ASSERT_EQ(one.list.copy(begin, end), std::vector(one.plain.begin() + begin, one.plain.begin() + end));
      ASSERT_EQ(one.list[begin], one.plain[begin]);
    }
  }
}

TEST(TokenList, AppendingWithoutMemoryCanBeUndone) {
  for (const int64_t before : {0, 1000, 1023, 1024, 5000}) {
    TokenList list;
    std::vector<int32_t> plain(before), more(3000);
    std::iota(plain.begin(), plain.end(), 0);
    std::iota(more.begin(), more.end(), 10000);
    list.append(plain);
    test::with_each_failing_allocation([&] { list.append(more); },
                                       [&] {
                                         const test::AllocationLimit limit(0);
                                         list.truncate(before);  // undoing the append allocates nothing
                                         EXPECT_EQ(list.size(), before);
                                       });
    plain.insert(plain.end(), more.begin(), more.end());
    EXPECT_EQ(list.copy(0, list.size()), plain);
  }
}

}  // namespace
}  // namespace fathom
