#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "base/error.h"
#include "decode/stop_matcher.h"
#include "seed.h"

namespace fathom {
namespace {

TEST(StopMatcher, StopStringInOnePieceEndsTheTextBeforeIt) {
  StopMatcher matcher({"END"});
  EXPECT_EQ(matcher.add("text END more"), "text ");
  EXPECT_TRUE(matcher.stopped());
  EXPECT_EQ(matcher.add("END"), "");
  EXPECT_EQ(matcher.flush(), "");
}

TEST(StopMatcher, TextThatMayBecomeAStopStringIsHeldBack) {
  StopMatcher matcher({"END"});
  EXPECT_EQ(matcher.add("the E"), "the ");
  EXPECT_EQ(matcher.add("N"), "");
  EXPECT_FALSE(matcher.stopped());
  EXPECT_EQ(matcher.add("T"), "ENT");
  EXPECT_EQ(matcher.add("EEN"), "E");
  EXPECT_EQ(matcher.flush(), "EN");
}

TEST(StopMatcher, StopStringAfterARepeatedStartIsFound) {
  StopMatcher matcher({"aab"});
  EXPECT_EQ(matcher.add("aa"), "");
  EXPECT_EQ(matcher.add("a"), "a");
  EXPECT_EQ(matcher.add("b"), "");
  EXPECT_TRUE(matcher.stopped());
}

TEST(StopMatcher, EmptyStopStringIsAUsageError) { EXPECT_THROW(StopMatcher({"a", ""}), Error); }

TEST(StopMatcher, WithoutStopStringsAllTextIsReturned) {
  StopMatcher matcher({});
  EXPECT_EQ(matcher.add("all of it"), "all of it");
  EXPECT_FALSE(matcher.stopped());
}

TEST(StopMatcher, ResultDoesNotDependOnWhereThePiecesAreCut) {
  std::mt19937 random(test::seed(1));
  for (int round = 0; round < 500; ++round) {
    std::string text(30, ' ');
    for (char& c : text) c = "ab"[random() % 2];
    std::vector<std::string> stops;
    for (int i = 0; i < 3; ++i) {
      std::string stop(3 + random() % 4, ' ');
      for (char& c : stop) c = "ab"[random() % 2];
      stops.push_back(stop);
    }
    StopMatcher whole(stops), pieces(stops);
    std::string expected = whole.add(text), found;
    expected += whole.flush();
    for (size_t at = 0; at < text.size();) {
      const size_t bytes = 1 + random() % 5;
      found += pieces.add(text.substr(at, bytes));
      at += bytes;
    }
    found += pieces.flush();
    EXPECT_EQ(found, expected) << text;
    EXPECT_EQ(pieces.stopped(), whole.stopped());
    for (const std::string& stop : stops) EXPECT_EQ(found.find(stop), std::string::npos);
  }
}

}  // namespace
}  // namespace fathom
