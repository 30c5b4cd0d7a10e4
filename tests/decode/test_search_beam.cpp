// Beam search with and without groups.
#include <gtest/gtest.h>

#include <map>

#include "search_bench.h"

namespace fathom {
namespace {

using test::AllowedTokens;
using test::enumerate;
using test::house;
using test::SearchBench;
using test::tiny;
using test::tokens_of;
using Tokens = std::vector<int32_t>;

const std::string kText = "The old man went down to the sea, and he";

TEST(BeamSearch, OfWidthOneIsGreedy) {
  for (const SearchBench& bench : {house(kText), house("Question: who are you?\nAnswer:"), tiny(8)}) {
    const SearchResult result = bench.run("beam:width=1", 24);
    EXPECT_EQ(tokens_of(result), std::vector<Tokens>{bench.greedy(24)});
    EXPECT_EQ(result.forwards, result.tokens_read);
  }
}

TEST(BeamSearch, OfFullWidthFindsTheBestContinuations) {
  for (const double power : {0.0, 1.0}) {
    const SearchBench bench = tiny(5);
    std::vector<Hypothesis> all;
    Tokens tokens;
    enumerate(bench.read(), 4, true, tokens, 0, [&](const Tokens& t, double log_p, bool ended) {
      all.push_back({t, log_p, log_p / std::pow(static_cast<double>(t.size() + ended), power), ended});
    });
    std::ranges::sort(all, std::greater{}, &Hypothesis::score);
    const SearchResult result = bench.run("beam:width=341,length_penalty=" + std::to_string(power), 4);
    ASSERT_EQ(result.hypotheses.size(), all.size());
    for (size_t i = 0; i < 20; ++i) {
      EXPECT_EQ(result.hypotheses[i].tokens, all[i].tokens);
      EXPECT_NEAR(result.hypotheses[i].score, all[i].score, 1e-4);
      EXPECT_EQ(result.hypotheses[i].ended, all[i].ended);
    }
  }
}

TEST(BeamSearch, StopsWhenNoOpenBeamCanBeBetter) {
  const SearchBench bench = tiny(6);
  // Only token 1 and the end are allowed, so the beams are 1, 11, 111, … and each may end.
  const AllowedTokens constraint({0, 1});
  std::vector<Hypothesis> all;
  Session session = bench.read();
  double sum = 0;
  constexpr int64_t kLimit = 400;
  for (Tokens tokens; std::ssize(tokens) < kLimit; tokens.push_back(1)) {
    const std::vector<double> log_p = SearchBench::log_softmax(session);
    all.push_back({tokens, sum + log_p[0], sum + log_p[0], true});
    sum += log_p[1];
    const int32_t one = 1;
    session.append({&one, 1});
  }
  const double cut = sum;  // of the continuation without an end
  std::ranges::sort(all, std::greater{}, &Hypothesis::score);
  const SearchResult result = bench.run("beam:width=2", kLimit, &constraint);
  ASSERT_EQ(result.hypotheses.size(), 2);
  EXPECT_EQ(result.hypotheses[0].ended, all[0].score > cut);
  if (all[1].score > cut) {
    EXPECT_EQ(result.hypotheses[0].tokens, all[0].tokens);
    EXPECT_EQ(result.hypotheses[1].tokens, all[1].tokens);
    EXPECT_LT(result.forwards, kLimit - 1);
  }
}

TEST(DiverseBeam, WithOneGroupIsBeamSearch) {
  const SearchBench bench = house(kText);
  const SearchResult plain = bench.run("beam:width=4", 16),
                     one = bench.run("diverse-beam:width=4,groups=1,penalty=3", 16);
  EXPECT_EQ(tokens_of(one), tokens_of(plain));
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(one.hypotheses[i].score, plain.hypotheses[i].score);
}

TEST(DiverseBeam, FirstGroupIsBeamSearchOfItsWidth) {
  const SearchBench bench = house(kText);
  const std::vector<Tokens> plain = tokens_of(bench.run("beam:width=2", 16));
  for (const char* kind : {"hamming", "cumulative", "ngram"}) {
    const auto found =
        tokens_of(bench.run(std::string("diverse-beam:width=6,groups=3,penalty=2,kind=") + kind, 16));
    EXPECT_EQ(found.size(), 6);
    for (const Tokens& tokens : plain) EXPECT_TRUE(std::ranges::count(found, tokens)) << kind;
  }
}

TEST(DiverseBeam, WithoutPenaltyAllGroupsAreEqual) {
  const auto found = tokens_of(house(kText).run("diverse-beam:width=6,groups=3,penalty=0", 12));
  std::map<Tokens, int> counts;
  for (const Tokens& tokens : found) ++counts[tokens];
  EXPECT_EQ(counts.size(), 2);
  for (const auto& [tokens, count] : counts) EXPECT_EQ(count, 3);
}

TEST(DiverseBeam, WithALargePenaltyAllTokensOfAStepDiffer) {
  const SearchBench bench = house(kText);
  std::set<int32_t> allowed;
  for (int32_t id = 300; id < 4096; ++id) allowed.insert(id);
  const AllowedTokens constraint(allowed);  // no group ends, so all have the same length
  const auto found = tokens_of(bench.run("diverse-beam:width=5,groups=5,penalty=1000", 12, &constraint));
  ASSERT_EQ(found.size(), 5);
  for (size_t step = 0; step < 12; ++step) {
    std::set<int32_t> chosen;
    for (const Tokens& tokens : found) chosen.insert(tokens.at(step));
    EXPECT_EQ(chosen.size(), 5) << step;
  }
}

TEST(DiverseBeam, NgramPenaltyPreventsTokensOfEarlierGroups) {
  const SearchBench bench = house(kText);
  std::set<int32_t> allowed;
  for (int32_t id = 300; id < 4096; ++id) allowed.insert(id);
  const AllowedTokens constraint(allowed);
  auto found =
      tokens_of(bench.run("diverse-beam:width=3,groups=3,penalty=1000,kind=ngram,ngram=1", 10, &constraint));
  ASSERT_EQ(found.size(), 3);
  // At each step a group avoids the tokens that earlier groups have chosen so far. The order of the groups is
  // unknown.
  std::ranges::sort(found);
  bool holds = false;
  do {
    bool all = true;
    for (size_t later = 1; later < 3; ++later)
      for (size_t earlier = 0; earlier < later; ++earlier)
        for (size_t step = 0; step < 10; ++step)
          all &= std::count(found[earlier].begin(), found[earlier].begin() + step + 1, found[later][step]) == 0;
    holds |= all;
  } while (std::next_permutation(found.begin(), found.end()));
  EXPECT_TRUE(holds);
}

TEST(DiverseBeam, CumulativePenaltyEqualsItsFormula) {
  const SearchBench bench = house(kText);
  constexpr double kPenalty = 3, kRange = 1.5;
  const Tokens first = bench.greedy(10);
  Session session = bench.read();
  Tokens expected;
  double differing = 0, log_probability = 0, score = 0;
  for (size_t step = 0; step < 10; ++step) {
    const std::vector<double> log_p = SearchBench::log_softmax(session);
    const auto penalised = [&](int32_t token) {
      return log_p[token] - kPenalty * std::exp(-(differing + (token != first[step] ? 1 : 0)) / kRange);
    };
    int32_t best = 0;
    for (int32_t token = 1; token < std::ssize(log_p); ++token)
      if (penalised(token) > penalised(best)) best = token;
    score += penalised(best);
    log_probability += log_p[best];
    differing += best != first[step] ? 1 : 0;
    expected.push_back(best);
    session.append({&best, 1});
  }
  const SearchResult result = bench.run("diverse-beam:width=2,groups=2,kind=cumulative,penalty=3,range=1.5", 10);
  ASSERT_EQ(result.hypotheses.size(), 2);
  EXPECT_NE(expected, first);
  const auto found = tokens_of(result);
  EXPECT_TRUE(std::ranges::count(found, first));
  const auto second = std::ranges::find(result.hypotheses, expected, &Hypothesis::tokens);
  ASSERT_NE(second, result.hypotheses.end());
  EXPECT_NEAR(second->score, score, 1e-3);
  EXPECT_NEAR(second->log_probability, log_probability, 1e-3);
}

/// Returns the share of distinct pairs of neighbouring tokens in all hypotheses.
double distinct_pairs(const SearchResult& result) {
  std::set<std::pair<int32_t, int32_t>> pairs;
  int64_t total = 0;
  for (const Hypothesis& h : result.hypotheses) {
    for (size_t i = 1; i < h.tokens.size(); ++i, ++total) pairs.insert({h.tokens[i - 1], h.tokens[i]});
  }
  return static_cast<double>(pairs.size()) / static_cast<double>(std::max<int64_t>(total, 1));
}

TEST(DiverseBeam, HasMoreDistinctPairsThanBeamSearch) {
  double plain = 0, diverse = 0, plain_best = 0, diverse_best = 0;
  for (const char* text : {"The old man went down to the sea, and he", "It was a cold morning in the town when",
                           "She opened the letter and read that", "The captain looked at the map.",
                           "In the middle of the garden there was", "My dear friend, I write to you"}) {
    const SearchBench bench = house(text);
    const SearchResult beams = bench.run("beam:width=6", 20),
                       groups = bench.run("diverse-beam:width=6,groups=6", 20);
    plain += distinct_pairs(beams) / 6;
    diverse += distinct_pairs(groups) / 6;
    const auto best = [](const SearchResult& r) {
      return std::ranges::max_element(r.hypotheses, {}, &Hypothesis::log_probability)->log_probability;
    };
    plain_best += best(beams) / 6;
    diverse_best += best(groups) / 6;
  }
  RecordProperty("distinct_pairs_plain", std::to_string(plain));
  RecordProperty("distinct_pairs_diverse", std::to_string(diverse));
  EXPECT_GT(diverse, 1.5 * plain);
  EXPECT_GT(diverse_best, plain_best - 4);
}

}  // namespace
}  // namespace fathom
