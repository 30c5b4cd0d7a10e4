// ShadowKV: chunks of the prompt, selected by their mean key.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "reading.h"
#include "token_sets.h"

namespace fathom {
namespace {

using test::all_below;
using test::as_set;
using test::Reading;

TEST(ShadowKv, SelectsOutliersTheNewestTokensAndTheMatchingChunk) {
  Reading reading({}, "shadowkv:budget=64,outliers=5");
  for (float& x : reading.keys) x *= 0.1f;
  const auto set_chunk = [&](int64_t chunk,
                             float sign) {  // one direction in all keys of the chunk, or two opposite ones
    for (int64_t t = chunk * 8; t < chunk * 8 + 8; ++t)
      for (int d = 0; d < 16; ++d) reading.key(t, 0)[d] += d >= 14 ? 5 * (t % 2 ? sign : 1.0f) : 0;
  };
  set_chunk(77, 1);
  set_chunk(30, -1);
  for (int h = 0; h < 2; ++h)
    for (int d = 0; d < 16; ++d) reading.query(1500, h)[d] = d >= 14 ? 3 : 0;
  reading.read(1500);
  EXPECT_EQ(reading.attended(0), all_below(1500));
  reading.read(1);
  const std::set<int64_t> attended = as_set(reading.attended(0));
  for (int64_t t = 0; t < 8; ++t) EXPECT_TRUE(attended.contains(77 * 8 + t));
  const int64_t exact = 1500 / 64 * 64 - 64 + (1500 - 32 >= 1500 / 64 * 64 ? 64 : 0);
  for (int64_t t = exact; t < 1501; ++t) EXPECT_TRUE(attended.contains(t)) << t;
  EXPECT_EQ(std::ssize(attended), 64 + 5 * 8 + 1501 - exact);
}

TEST(ShadowKv, ChunksOfOtherSizesAreSelectedWhole) {
  for (const int64_t chunk : {16, 32, 64}) {
    Reading reading({}, "shadowkv:budget=128,outliers=1,block=" + std::to_string(chunk));
    reading.read(1500);
    reading.read(1);
    const std::vector<int64_t> attended = reading.attended(0);
    const std::set<int64_t> all = as_set(attended);
    // Tokens from the first page that holds one of the newest chunks are exact.
    const int64_t exact = (1500 - 4 * chunk) / 64 * 64;
    int64_t selected = 0;
    for (int64_t first = 0; first < exact; first += chunk) {
      int64_t here = 0;
      for (int64_t t = first; t < first + chunk; ++t) here += all.contains(t) ? 1 : 0;
      EXPECT_TRUE(here == 0 || here == chunk) << "chunk of " << chunk << " at " << first;
      selected += here;
    }
    EXPECT_EQ(selected, 128 + chunk) << "the budget and one outlier";
    EXPECT_EQ(std::ssize(attended) - selected, 1501 - exact);
  }
}

TEST(ShadowKv, AStateCreatedLateTreatsEarlierTokensAsThePrompt) {
  Reading reading({}, "shadowkv:budget=64,outliers=0");
  reading.read(1000);
  reading.sequence.set_state(Sequence::StateOf::kSelector, reading.selector->new_state());
  reading.read(1);
  EXPECT_LT(reading.attended(0).size(), 64u + 100);
  const auto before = reading.attended(1);
  for (int i = 0; i < 5; ++i) reading.read(1);
  for (int64_t t = 1000; t < 1006; ++t) EXPECT_TRUE(std::ranges::binary_search(reading.attended(0), t));
  EXPECT_EQ(before.back(), 1000);
}

TEST(ShadowKv, OutliersAreTheChunksLeastSimilarToTheirMean) {
  Reading reading({}, "shadowkv:budget=8,outliers=1");
  for (int64_t t = 0; t < 2000; ++t)  // neighbours are similar, except in one chunk
    for (int d = 0; d < 16; ++d)
      reading.key(t, 0)[d] =
          (t / 8 == 40 && t % 2 ? -1.0f : 1.0f) * reading.key(t / 8 * 8, 0)[d] * (d < 10 ? 0 : 1);
  reading.read(1500);
  reading.read(1);
  const std::set<int64_t> attended = as_set(reading.attended(0));
  for (int64_t t = 320; t < 328; ++t) EXPECT_TRUE(attended.contains(t));
}

}  // namespace
}  // namespace fathom
