#include "seed.h"
#include "tokens/merge.h"

#include <gtest/gtest.h>

#include <random>

namespace fathom {
namespace {

/// Random merges of a few ids. There are only five ranks, so that ties are common.
struct RandomMerges {
  static constexpr int kIds = 12;
  Merge table[kIds][kIds];

  explicit RandomMerges(std::mt19937& random) {
    for (auto& row : table) {
      for (Merge& merge : row) {
        if (random() % 2) merge = {static_cast<uint32_t>(random() % 5), static_cast<int32_t>(random() % kIds)};
      }
    }
  }
  Merge operator()(const Symbol& left, const Symbol& right) const { return table[left.id][right.id]; }
};

bool same(const std::vector<Symbol>& a, const std::vector<Symbol>& b) {
  return std::ranges::equal(a, b, [](const Symbol& x, const Symbol& y) {
    return x.begin == y.begin && x.bytes == y.bytes && x.id == y.id;
  });
}

TEST(Merge, QueueEqualsScanOverRandomMerges) {
  std::mt19937 random(test::seed(1));
  for (int trial = 0; trial < 2000; ++trial) {
    const RandomMerges merges(random);
    std::vector<Symbol> scanned(random() % 60);
    for (uint32_t i = 0; i < scanned.size(); ++i)
      scanned[i] = {i, 1, static_cast<int32_t>(random() % RandomMerges::kIds)};
    std::vector<Symbol> queued = scanned;
    merging::merge_few(scanned, merges);
    merging::merge_many(queued, merges);
    ASSERT_TRUE(same(scanned, queued)) << "trial " << trial;
  }
}

TEST(Merge, LowestRankMergesFirstAndOfEqualRanksTheLeftmost) {
  const auto merge_two_as = [](const Symbol& left, const Symbol& right) {
    return left.id == 0 && right.id == 0 ? Merge{0, 1} : Merge{};
  };
  std::vector<Symbol> symbols{{0, 1, 0}, {1, 1, 0}, {2, 1, 0}};
  merge_symbols(symbols, merge_two_as);
  ASSERT_EQ(symbols.size(), 2u);
  EXPECT_EQ(symbols[0].bytes, 2u);
  EXPECT_EQ(symbols[1].bytes, 1u);
}

}  // namespace
}  // namespace fathom
