// TokenSelect: single tokens, selected by the votes of all heads.
#include <gtest/gtest.h>

#include <bit>
#include <set>

#include "reading.h"
#include "token_sets.h"

namespace fathom {
namespace {

using test::all_below;
using test::as_set;
using test::largest;
using test::Reading;
using test::ReadingShape;

TEST(TokenSelect, SelectsTheSinkTheWindowAndTheTokensWithMostVotes) {
  for (uint32_t seed = 1; seed <= 4; ++seed) {
    ReadingShape shape;
    shape.seed = seed;
    Reading reading(shape, "tokenselect:budget=100,window=70,sink=10");
    reading.read(1499);
    reading.read(1);
    std::vector<double> votes(1430 - 10);
    for (int h = 0; h < 4; ++h) {
      std::vector<double> head = reading.scores(1499, h, 10, 1430);
      Reading::softmax(head);
      for (size_t i = 0; i < head.size(); ++i) votes[i] += head[i];
    }
    std::set<int64_t> expected;
    for (const int64_t t : largest(votes, 100)) expected.insert(t + 10);
    for (int64_t t = 0; t < 10; ++t) expected.insert(t);
    for (int64_t t = 1430; t < 1500; ++t) expected.insert(t);
    EXPECT_EQ(as_set(reading.attended(0)), expected);
    EXPECT_EQ(reading.attended(0), reading.attended(1)) << "heads of a layer differ";
  }
}

TEST(TokenSelect, EachChunkOfAPassHasItsOwnSelection) {
  Reading whole({}, "tokenselect:budget=64,window=200,sink=0,chunk=128");
  Reading parts({}, "tokenselect:budget=64,window=200,sink=0,chunk=128");
  whole.read(1024 + 128);
  for (int i = 0; i < 9; ++i) parts.read(128);
  // the selections of the whole pass are those of its first chunk, which attends to all tokens
  EXPECT_EQ(whole.attended(0), all_below(1152));
  const QueryBlock block{.layer = 0,
                         .head = 0,
                         .group = 2,
                         .first = 1024,
                         .rows = 128,
                         .state = whole.sequence.state(Sequence::StateOf::kSelector)};
  Selection selection;
  whole.selector->select(whole.sequence.kv(0).table(0), block, selection);
  ASSERT_EQ(selection.pages.size(), parts.selections[0].pages.size());
  int64_t attended = 0;
  for (size_t i = 0; i < selection.pages.size(); ++i) {
    EXPECT_EQ(selection.pages[i].entry, parts.selections[0].pages[i].entry);
    EXPECT_EQ(selection.pages[i].mask, parts.selections[0].pages[i].mask);
    attended += std::popcount(selection.pages[i].mask);
  }
  EXPECT_EQ(attended, 64 + 200);
}

TEST(TokenSelect, RowsAttendToTheirChunkEvenIfTheWindowIsShorter) {
  Reading reading({}, "tokenselect:budget=64,window=16,sink=0,chunk=128");
  for (int i = 0; i < 9; ++i) reading.read(128);
  const std::vector<int64_t> attended = reading.attended(0);
  EXPECT_EQ(attended.size(), 64u + 128);
  EXPECT_EQ(attended[64], 1024);
}

TEST(TokenSelect, SelectionsAreReusedOnlyForSimilarQueries) {
  for (const double theta : {0.9, 1.0}) {
    Reading reading({}, "tokenselect:budget=64,window=16,sink=0,theta=" + std::to_string(theta));
    reading.read(1000);
    // only slow rotary pairs: the same query at the next position is nearly unchanged
    for (int h = 0; h < 4; ++h) {
      for (int d = 0; d < 16; ++d) {
        for (int64_t t = 1000; t < 1004; ++t)
          reading.query(t, h)[d] = d < 10 ? 0 : static_cast<float>((d % 3 - 1) * (t == 1003 ? -1 : 1));
        if (d == 12) reading.query(1001, h)[d] += 0.3f;
      }
    }
    const auto selected = [&] {
      std::set<int64_t> tokens;
      for (const int64_t t : reading.attended(0))
        if (t < 980) tokens.insert(t);
      return tokens;
    };
    reading.read(1);
    const std::set<int64_t> first = selected();
    reading.read(1);
    EXPECT_EQ(selected() == first, theta < 1);
    reading.read(1);
    reading.read(1);  // the opposite query
    EXPECT_NE(selected(), first);
  }
}

TEST(TokenSelect, CompactedPagesKeepTheirOrderAndLeaveNoGaps) {
  Reading reading({}, "tokenselect:budget=100,window=70,sink=64,positions=compacted");
  reading.read(1999);
  reading.read(1);
  const PageTable& table = reading.sequence.kv(0).table(0);
  int64_t selected = 0, last = -1;
  for (const SelectedPage& page : reading.selections[0].pages) {
    const PageEntry& entry = table[page.entry];
    const int64_t newest = page.position + 63 - std::countl_zero(page.mask);
    EXPECT_GE(page.position, entry.position) << "farther away than the original position";
    EXPECT_GT(newest, last);
    last = newest;
    if (entry.first + entry.filled > 1930) {
      EXPECT_EQ(page.position, entry.position);
      continue;
    }
    selected += std::popcount(page.mask);
    // the last selected token of the page is just before the next selected token
    EXPECT_EQ(1930 - newest - 1, 64 + 100 - selected - (reading.attended(0).size() - 64 - 100 - 70));
  }
  EXPECT_EQ(reading.attended(0).size(), 64u + 100 + 70);
  EXPECT_EQ(reading.selections[0].pages[0].position, 1930 - 164) << "the sink is a whole page";
}

}  // namespace
}  // namespace fathom
