#include <gtest/gtest.h>

#include "search_bench.h"

namespace fathom {
namespace {

using test::enumerate;
using test::house;
using test::SearchBench;
using test::tiny;
using test::tokens_of;
using Tokens = std::vector<int32_t>;

const std::string kTreeText = "The old man went down to the sea, and he";

TEST(TreeSearch, WithOneBranchIsGreedy) {
  for (const SearchBench& bench : {house(kTreeText), tiny(8)}) {
    const SearchResult result = bench.run("tree:branch=1", 30);
    EXPECT_EQ(tokens_of(result), std::vector<Tokens>{bench.greedy(30)});
  }
}

TEST(TreeSearch, WithMaxBackupFindsTheBestContinuation) {
  for (const bool ends : {false, true}) {
    const SearchBench bench = tiny(4, ends);
    Hypothesis best{{}, 0, -1, false};
    Tokens tokens;
    enumerate(bench.read(), 4, ends, tokens, 0, [&](const Tokens& t, double log_p, bool ended) {
      const double value = std::exp(log_p / static_cast<double>(t.size() + ended));
      if (value > best.score) best = {t, log_p, value, ended};
    });
    const SearchResult result = bench.run("tree:span=1,branch=4,rollout=2,simulations=2000,backup=max,c=4", 4);
    EXPECT_EQ(result.hypotheses[0].tokens, best.tokens);
    EXPECT_NEAR(result.hypotheses[0].score, best.score, 1e-4);
    EXPECT_EQ(result.hypotheses[0].ended, best.ended);
  }
}

TEST(TreeSearch, FindsLikelierTextThanGreedyDecoding) {
  double gain = 0;
  for (const char* text : {"The old man went down to the sea, and he", "She opened the letter and read that"}) {
    const SearchBench bench = house(text);
    for (const char* backup : {"mean", "max"}) {
      const SearchResult result =
          bench.run(std::string("tree:span=4,rollout=8,simulations=24,backup=") + backup, 16);
      const Hypothesis& h = result.hypotheses[0];
      const Tokens greedy = bench.greedy(16);
      const double mean = bench.log_probability(greedy, greedy.size() < 16) / std::min(16.0, greedy.size() + 1.0);
      gain += std::log(h.score) - mean;
    }
  }
  EXPECT_GT(gain / 4, 0.1);
}

}  // namespace
}  // namespace fathom
