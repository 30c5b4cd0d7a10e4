// Exact search and conditional beam search.
#include <gtest/gtest.h>

#include "search_bench.h"

namespace fathom {
namespace {

using test::enumerate;
using test::house;
using test::SearchBench;
using test::tiny;
using Tokens = std::vector<int32_t>;

bool has_repeated_ngram(const Tokens& tokens, size_t n) {
  for (size_t i = 0; i + n <= tokens.size(); ++i)
    for (size_t j = i + 1; j + n <= tokens.size(); ++j)
      if (std::equal(tokens.begin() + i, tokens.begin() + i + n, tokens.begin() + j)) return true;
  return false;
}

/// Returns all continuations of at most `limit` tokens for which `accept` returns true, the most likely one first.
template <class Accept>
std::vector<Hypothesis> brute_force(const SearchBench& bench, int64_t limit, bool ends, const Accept& accept) {
  std::vector<Hypothesis> all;
  Tokens tokens;
  enumerate(bench.read(), limit, ends, tokens, 0, [&](const Tokens& t, double log_p, bool ended) {
    if (accept(t, ended)) all.push_back({t, log_p, log_p, ended});
  });
  std::ranges::sort(all, std::greater{}, &Hypothesis::score);
  return all;
}

void expect_best(const SearchResult& result, const std::vector<Hypothesis>& all) {
  ASSERT_LE(result.hypotheses.size(), all.size());
  for (size_t i = 0; i < result.hypotheses.size(); ++i) {
    EXPECT_NEAR(result.hypotheses[i].log_probability, all[i].log_probability, 1e-4);
    EXPECT_EQ(result.hypotheses[i].tokens, all[i].tokens);
    EXPECT_EQ(result.hypotheses[i].ended, all[i].ended);
  }
}

TEST(ExactSearch, EqualsBruteForce) {
  const SearchBench bench = tiny(6);
  // Of up to 5 tokens and an end: the enumeration to 6 tokens lists all of them.
  const auto ended = brute_force(bench, 6, true, [](const Tokens&, bool end) { return end; });
  for (const char* batch : {"1", "4"}) {
    const SearchResult result = bench.run(std::string("exact:best=5,batch=") + batch, 5);
    ASSERT_EQ(result.hypotheses.size(), 5);
    expect_best(result, ended);
    EXPECT_LT(result.tokens_read, 3905);  // 5 + 25 + … + 3125, all prefixes
  }
  const auto cut = brute_force(bench, 4, true, [](const Tokens&, bool) { return true; });
  expect_best(bench.run("exact:best=3,cut=true", 4), cut);
}

TEST(ExactSearch, ConditionsEqualBruteForce) {
  const SearchBench bench = tiny(6);
  const auto all = brute_force(bench, 6, true, [](const Tokens&, bool end) { return end; });
  const auto expect = [&](const char* spec, const auto& accept) {
    SCOPED_TRACE(spec);
    std::vector<Hypothesis> accepted;
    for (const Hypothesis& h : all)
      if (accept(h.tokens)) accepted.push_back(h);
    const SearchResult result = bench.run(spec, 5);
    ASSERT_EQ(result.hypotheses.size(), 3);
    expect_best(result, accepted);
  };
  expect("exact:best=3,nonempty=true", [](const Tokens& t) { return !t.empty(); });
  expect("exact:best=3,length=4", [](const Tokens& t) { return t.size() == 4; });
  expect("exact:best=3,length=5,repeat=1",
         [](const Tokens& t) { return t.size() == 5 && !has_repeated_ngram(t, 1); });
  expect("exact:best=3,length=5,repeat=2",
         [](const Tokens& t) { return t.size() == 5 && !has_repeated_ngram(t, 2); });
}

TEST(ExactSearch, ReportsAnUnfinishedSearch) {
  const SearchBench bench = tiny(6);
  const auto message = [&](const std::string& spec) {
    try {
      bench.run(spec, 5);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(message("exact:length=5,best=50,max_reads=40").find("max_reads=40"), std::string::npos);
  EXPECT_NE(message("exact:length=5,max_reads=3,partial=true").find("before any continuation"), std::string::npos);
  EXPECT_NE(message("exact:length=9").find("length=9 exceeds"), std::string::npos);
  const SearchResult partial = bench.run("exact:length=5,best=50,max_reads=40,partial=true", 5);
  EXPECT_EQ(partial.hypotheses[0].tokens.size(), 5);
  EXPECT_LE(partial.tokens_read, 40);
  EXPECT_THROW(tiny(6, false).run("exact", 5), Error);
  // Five tokens other than the end cannot fill six tokens without repetition.
  EXPECT_THROW(bench.run("exact:length=6,repeat=1", 6), Error);
}

TEST(ConditionalBeam, OfFullWidthEqualsTheExactMode) {
  const SearchBench bench = tiny(6);
  for (const char* repeat : {"0", "2"}) {
    const SearchResult exact = bench.run(std::string("exact:length=4,best=4,repeat=") + repeat, 4);
    const SearchResult beam =
        bench.run(std::string("conditional-beam:length=4,width=625,expand=1,repeat=") + repeat, 4);
    ASSERT_GE(beam.hypotheses.size(), 4);
    for (size_t i = 0; i < 4; ++i) {
      EXPECT_EQ(beam.hypotheses[i].tokens, exact.hypotheses[i].tokens);
      EXPECT_NEAR(beam.hypotheses[i].log_probability, exact.hypotheses[i].log_probability, 1e-4);
    }
  }
}

/// Allows the end after exactly n tokens only.
class EndsAfter final : public Constraint {
 public:
  EndsAfter(int64_t n, const Tokenizer& tokenizer) : n_(n), tokenizer_(tokenizer) {}
  std::unique_ptr<ConstraintState> start() const override { return std::make_unique<State>(n_, tokenizer_); }

 private:
  struct State final : ConstraintState {
    State(int64_t n, const Tokenizer& t) : left(n), tokenizer(t) {}
    std::unique_ptr<ConstraintState> fork() const override { return std::make_unique<State>(left, tokenizer); }
    void restrict(Candidates& candidates) const override {
      const auto all = candidates.all();
      const auto removed = std::ranges::partition(
          all, [&](const Candidate& c) { return tokenizer.ends_generation(c.id) == (left == 0); });
      candidates.keep_first(all.size() - removed.size());
    }
    void take(int32_t) override { --left; }
    int64_t left;
    const Tokenizer& tokenizer;
  };
  int64_t n_;
  const Tokenizer& tokenizer_;
};

struct BeamComparison {
  double conditional = 0, blocked = 0;  // log-probability of the best continuation
};

/// Compares conditional beam search with a beam search in which earlier ends are forbidden.
BeamComparison compare(const SearchBench& bench, int64_t width, int64_t length) {
  const EndsAfter constraint(length, *bench.tokenizer);
  const std::string parameters = "width=" + std::to_string(width);
  const SearchResult blocked = bench.run("beam:" + parameters, length + 1, &constraint);
  const SearchResult result =
      bench.run("conditional-beam:expand=4," + parameters + ",length=" + std::to_string(length), length);
  EXPECT_EQ(std::ssize(result.hypotheses), width);
  for (const Hypothesis& h : result.hypotheses) {
    EXPECT_EQ(std::ssize(h.tokens), length);
    EXPECT_TRUE(h.ended);
  }
  return {result.hypotheses[0].log_probability, blocked.hypotheses[0].log_probability};
}

TEST(ConditionalBeam, WithoutTheEstimateIsABeamSearchWithForbiddenEnds) {
  const SearchBench bench = tiny(8);
  const EndsAfter constraint(6, *bench.tokenizer);
  const SearchResult blocked = bench.run("beam:width=5", 7, &constraint);
  const SearchResult result = bench.run("conditional-beam:width=5,weight=0,length=6", 6);
  ASSERT_EQ(result.hypotheses.size(), blocked.hypotheses.size());
  for (size_t i = 0; i < result.hypotheses.size(); ++i)
    EXPECT_EQ(result.hypotheses[i].tokens, blocked.hypotheses[i].tokens);
}

TEST(ConditionalBeam, FindsLikelierContinuationsThanForbiddenEnds) {
  double gain = 0;
  int count = 0, worse = 0;
  const auto add = [&](const BeamComparison& figures) {
    gain += figures.conditional - figures.blocked;
    worse += figures.conditional < figures.blocked - 0.1 ? 1 : 0;
    ++count;
  };
  for (const char* text : {"The old man went down to the sea, and he", "She opened the letter and read that"})
    for (const int64_t length : {5, 9}) add(compare(house(text), 5, length));
  RecordProperty("gain_house", std::to_string(gain / count));
  EXPECT_GT(gain / count, 0.5);
  gain = 0;
  count = 0;
  SearchBench bench = tiny(8);
  for (int32_t first = 0; first < 8; ++first) {
    for (int32_t second = 1; second < 8; second += 2) {
      bench.prompt = {3, first, second};
      add(compare(bench, 5, 6));
    }
  }
  RecordProperty("gain_random", std::to_string(gain / count));
  EXPECT_GT(gain / count, 0);
  EXPECT_LE(worse, count / 4);
}

TEST(ConditionalBeam, RejectsLengthsThatDoNotFit) {
  EXPECT_THROW(tiny(6).run("conditional-beam:length=9", 8), Error);
  EXPECT_THROW(tiny(6, false).run("conditional-beam:length=4", 8), Error);
}

}  // namespace
}  // namespace fathom
