#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <vector>

#include "decode/random.h"

namespace fathom {
namespace {

TEST(Random, BitsDependOnSeedPositionAndIndex) {
  const uint64_t bits = random_bits(1, RandomStream::kToken, 2, 3);
  EXPECT_EQ(bits, random_bits(1, RandomStream::kToken, 2, 3));
  EXPECT_NE(bits, random_bits(2, RandomStream::kToken, 2, 3));
  EXPECT_NE(bits, random_bits(1, RandomStream::kToken, 3, 3));
  EXPECT_NE(bits, random_bits(1, RandomStream::kToken, 2, 4));
}

TEST(Random, UniformExcludesItsEnds) {
  EXPECT_GT(uniform_from(0), 0);
  EXPECT_LT(uniform_from(~uint64_t{0}), 1);
  EXPECT_DOUBLE_EQ(uniform_from(uint64_t{1} << 63), 0.5 + 0x1p-53);
}

/// Fills 16 bins over consecutive positions and over consecutive indices, as in use.
TEST(Random, NeighbouringCountersFillBinsEvenly) {
  constexpr int kBins = 16, kDraws = 16000;
  for (const bool by_position : {true, false}) {
    std::vector<int> counts(kBins);
    for (int i = 0; i < kDraws; ++i) {
      const uint64_t bits =
          by_position ? random_bits(7, RandomStream::kToken, i, 5) : random_bits(7, RandomStream::kToken, 5, i);
      ++counts[static_cast<int>(uniform_from(bits) * kBins)];
    }
    double chi_square = 0;
    for (const int count : counts) chi_square += std::pow(count - kDraws / kBins, 2) / (kDraws / kBins);
    EXPECT_LT(chi_square, 37.7) << "15 degrees of freedom, 0.1 %";
  }
}

TEST(Random, OneBitOfTheIndexFlipsHalfOfTheBits) {
  double flipped = 0;
  constexpr int kPairs = 1000;
  for (int i = 0; i < kPairs; ++i) {
    flipped +=
        std::popcount(random_bits(3, RandomStream::kToken, i, 8) ^ random_bits(3, RandomStream::kToken, i, 9));
  }
  EXPECT_NEAR(flipped / kPairs, 32, 0.6);  // standard deviation 4 / sqrt(1000)
}

}  // namespace
}  // namespace fathom
