#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "base/error.h"
#include "decode/draft_report.h"

namespace fathom {
namespace {

Draft two_sources() {
  Draft draft;
  draft.add(-1, 10);
  draft.add(0, 11);
  draft.add(-1, 12);
  draft.sources = {0, 0, 1};
  return draft;
}

TEST(DraftReport, CountsNodesPerSource) {
  DraftReport report({"lookup", "table"});
  report.add(two_sources(), std::vector<int>{0, 1}, 3, 0.25);
  report.add(two_sources(), std::vector<int>{2}, 2, 0.25);
  report.add({}, {}, 1, 0);
  EXPECT_EQ(report.forwards(), 3);
  EXPECT_EQ(report.emitted(), 6);
  EXPECT_EQ(report.proposed(), 6);
  EXPECT_EQ(report.accepted(), 3);
  EXPECT_DOUBLE_EQ(report.tokens_per_forward(), 2);
  EXPECT_DOUBLE_EQ(report.draft_seconds(), 0.5);
  EXPECT_EQ(report.sources()[0].proposed, 4);
  EXPECT_EQ(report.sources()[0].accepted, 2);
  EXPECT_EQ(report.sources()[1].proposed, 2);
  EXPECT_EQ(report.sources()[1].accepted, 1);
  EXPECT_EQ(report.summary(),
            "6 tokens in 3 passes, 2.00 per pass; accepted 3 of 6 drafted tokens (lookup 2 of 4, table 1 of 2); "
            "drafting took 0.5 s");
}

TEST(DraftReport, ProbesAreNotDraftedTokens) {
  Draft draft;
  draft.add(-1, 10);
  draft.add_probe(0, 3);
  draft.add_probe(1, 3);
  draft.add(0, 11);
  draft.add_probe(-1, 3);
  EXPECT_EQ(draft.probes, (std::vector<uint8_t>{0, 1, 2, 0, 1}));
  DraftReport report({"lookup"});
  report.add(draft, std::vector<int>{0}, 2, 0);
  EXPECT_EQ(report.proposed(), 2);
  EXPECT_EQ(report.accepted(), 1);
}

TEST(DraftReport, SummaryOfTextsWithoutDrafts) {
  DraftReport report({"lookup"});
  EXPECT_EQ(report.summary(), "0 tokens in 0 passes, 0.00 per pass; no drafted tokens");
  report.add({}, {}, 1, std::numeric_limits<double>::quiet_NaN());
  EXPECT_EQ(report.summary(), "1 token in 1 pass, 1.00 per pass; no drafted tokens");
  EXPECT_EQ(report.draft_seconds(), 0);
}

TEST(DraftReport, CurveOfLongTextsIsBoundedAndKeepsItsSumsAndOrder) {
  DraftReport report({"lookup"});
  constexpr int64_t kForwards = 3 * 4096 + 5;
  int64_t emitted = 0;
  for (int64_t i = 0; i < kForwards; ++i) {
    const int64_t tokens = i < kForwards / 2 ? 1 : 3;
    report.add({}, {}, tokens, 0);
    emitted += tokens;
    ASSERT_LE(report.curve().size(), DraftReport::kMaxEntries);
  }
  int64_t forwards = 0, sum = 0;
  for (const DraftReport::Entry& entry : report.curve()) {
    forwards += entry.forwards;
    sum += entry.emitted;
    EXPECT_LE(entry.forwards, 4);
  }
  EXPECT_EQ(forwards, kForwards);
  EXPECT_EQ(sum, emitted);
  EXPECT_EQ(report.curve().front().emitted, report.curve().front().forwards);
  EXPECT_EQ(report.curve().back().emitted, 3 * report.curve().back().forwards);
}

TEST(DraftReport, UnknownSourcesAndNodesAreErrorsThatChangeNothing) {
  DraftReport report({"lookup"});
  EXPECT_THROW(report.add(two_sources(), {}, 1, 0), Error);
  Draft draft;
  draft.add(-1, 3);
  EXPECT_THROW(report.add(draft, std::vector<int>{1}, 1, 0), Error);
  EXPECT_EQ(report.forwards(), 0);
  EXPECT_EQ(report.proposed(), 0);
}

}  // namespace
}  // namespace fathom
