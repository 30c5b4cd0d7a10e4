// Drafts of the target model itself: with sparse attention, and superposed chains.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>

#include "base/error.h"
#include "drafting.h"
#include "seed.h"

namespace fathom {

namespace {

class SelfDraft : public testing::Test {
 protected:
  static Session target(const std::vector<int32_t>& prompt, int64_t context = 0) {
    Session session(test::floats(), test::draft_runtime(), {.context = context, .cache = "f32"});
    session.append(prompt);
    return session;
  }
  static std::unique_ptr<DraftSource> source(Session& session, const std::string& text) {
    return draft_methods().make(
        text, DraftSetup{.model = test::floats(), .runtime = test::draft_runtime(), .session = &session});
  }
  std::mt19937 random_{test::seed(0)};
  std::vector<int32_t> prompt_ = test::random_tokens(random_, 300);
};

std::vector<std::string> self_draft_sources() {
  return {"self:attend=(quest:budget=64,dense_layers=0),length=4",
          "self:attend=(window:sink=4,window=32),length=3",
          "self:attend=tokenselect:budget=64",
          "superposed:k=3,length=4",
          "superposed:k=1,length=5,alpha=0",
          "superposed:k=4,length=3,file=" + test::small_path()};
}

TEST_F(SelfDraft, GreedyTokensEqualPlainDecoding) {
  for (const std::string& text : self_draft_sources()) {
    Session session = target(prompt_);
    test::expect_plain_tokens(session, *source(session, text), prompt_, text);
  }
}

TEST_F(SelfDraft, SelectedTokensThatCoverTheTextAreAlwaysAccepted) {
  for (const std::vector<std::string>& steps : {std::vector<std::string>{}, {"temperature:t=0.9", "top-k:k=5"}}) {
    Session session = target(prompt_);
    Sampler sampler(steps, 2);
    const auto drafter = source(session, "self:attend=quest:budget=4k,length=6");
    const test::DraftRun run = test::decode_with(session, *drafter, sampler, prompt_, 50);
    EXPECT_EQ(run.accepted, run.drafted);
    EXPECT_EQ(run.drafted, 6 * run.forwards) << "7 tokens per forward";
  }
}

TEST_F(SelfDraft, OneSuperposedChainEqualsGreedyDecoding) {
  Session session = target(prompt_);
  Sampler sampler;
  const auto drafter = source(session, "superposed:k=1,length=6,alpha=0");
  const test::DraftRun run = test::decode_with(session, *drafter, sampler, prompt_, 50);
  EXPECT_EQ(run.accepted, run.drafted);
  EXPECT_EQ(run.drafted, 6 * run.forwards);
}

TEST_F(SelfDraft, SuperposedChainsAreDistinctAndHaveEqualLengths) {
  Session session = target(prompt_);
  const auto drafter = source(session, "superposed:k=3,length=5");
  Sampler sampler;
  prompt_.push_back(7);
  for (const int nodes : {1, 2, 7, 15, 63}) {
    const Draft draft =
        drafter->propose({.tokens = prompt_, .prompt = 300, .sampler = &sampler, .position = 301}, nodes);
    EXPECT_LE(draft.size(), nodes);
    EXPECT_EQ(draft.kind, DraftKind::kFixed);
    const int length = std::min(5, nodes / std::min(3, nodes));
    int leaves = 0;
    for (int node = 0; node < draft.size(); ++node) {
      for (int other = 0; other < node; ++other)
        EXPECT_FALSE(draft.tree.parent(node) == draft.tree.parent(other) &&
                     draft.tokens[node] == draft.tokens[other]);
      leaves += draft.tree.depth(node) + 1 == length;
      EXPECT_LT(draft.tree.depth(node), length);
    }
    EXPECT_EQ(leaves, std::min(3, nodes));
  }
}

TEST_F(SelfDraft, SampledDraftsCarryTheDistributionTheyWereDrawnFrom) {
  Session session = target(prompt_);
  const auto drafter = source(session, "self:attend=quest:budget=64,length=5,rule=reject");
  const std::vector<std::string> steps{"temperature:t=2", "top-k:k=6"};
  prompt_.push_back(7);
  for (uint64_t seed = 0; seed < 10; ++seed) {
    Sampler sampler(steps, seed);
    const Draft draft =
        drafter->propose({.tokens = prompt_, .prompt = 300, .sampler = &sampler, .position = 301}, 63);
    ASSERT_EQ(draft.size(), 5);
    EXPECT_EQ(draft.kind, DraftKind::kIndependent);
    for (int node = 0; node < 5; ++node) {
      const auto& row = draft.distributions[node];
      ASSERT_EQ(row.size(), 6);
      double sum = 0;
      for (const TokenProbability& entry : row) sum += entry.probability;
      EXPECT_NEAR(sum, 1, 1e-5);
      EXPECT_TRUE(std::ranges::count(row, draft.tokens[node], &TokenProbability::token));
    }
  }
}

TEST_F(SelfDraft, DoesNotChangeTheSession) {
  for (const std::string& text : self_draft_sources()) {
    Session session = target(prompt_), untouched = target(prompt_);
    const auto drafter = source(session, text);
    const std::vector<float> before(session.logits().begin(), session.logits().end());
    const size_t bytes = session.sequence().kv(0).store().bytes_in_use();
    Sampler sampler;
    std::vector<int32_t> history = prompt_;
    history.push_back(7);
    for (int i = 0; i < 3; ++i)
      EXPECT_GT(
          drafter->propose({.tokens = history, .prompt = 300, .sampler = &sampler, .position = 301}, 20).size(), 0);
    EXPECT_EQ(session.length(), 300);
    EXPECT_TRUE(std::ranges::equal(session.logits(), before));
    EXPECT_EQ(session.sequence().kv(0).store().bytes_in_use(), bytes) << text;
    session.append(std::span(history).last(1));
    untouched.append(std::span(history).last(1));
    EXPECT_TRUE(std::ranges::equal(session.logits(), untouched.logits())) << text;
  }
}

TEST_F(SelfDraft, AFullContextGivesShorterAndEmptyDrafts) {
  for (const std::string text : {"self:attend=quest:budget=64,length=4", "superposed:k=2,length=4"}) {
    for (int64_t room = 0; room < 6; ++room) {
      Session session = target(prompt_, 300 + room);
      const auto drafter = source(session, text);
      Sampler sampler;
      std::vector<int32_t> history = prompt_;
      history.push_back(7);
      const DraftContext context{.tokens = history, .prompt = 300, .sampler = &sampler, .position = 301};
      const Draft draft = drafter->propose(context, 8);
      EXPECT_EQ(draft.size() > 0, room > 0) << text;
      EXPECT_TRUE(!text.starts_with("self") || draft.size() == std::min<int64_t>(room, 4));
      history.push_back(8);  // the session does not hold the text
      EXPECT_EQ(
          drafter->propose({.tokens = history, .prompt = 300, .sampler = &sampler, .position = 302}, 8).size(), 0);
    }
  }
}

TEST_F(SelfDraft, ReportsMissingSessionsAndUnknownMethods) {
  Session session = target(prompt_);
  const DraftSetup none{.model = test::floats(), .runtime = test::draft_runtime()};
  EXPECT_THROW(draft_methods().make("self", none), Error);
  EXPECT_THROW(draft_methods().make("superposed", none), Error);
  EXPECT_THROW(source(session, "self:attend=nothing"), Error);
  EXPECT_THROW(source(session, "self:attend=quest:budget=-1"), Error);
  EXPECT_THROW(source(session, "superposed:file=/no/such.gguf"), Error);
}

}  // namespace
}  // namespace fathom
