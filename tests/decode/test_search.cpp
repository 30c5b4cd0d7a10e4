// Properties that all searches share.
#include "decode/search.h"

#include <gtest/gtest.h>

#include "search_bench.h"

namespace fathom {
namespace {

using test::AllowedTokens;
using test::house;
using test::SearchBench;
using test::words;

const std::vector<std::string> kAll{"beam:width=3",
                                    "diverse-beam:width=4,groups=2",
                                    "exact:best=3,max_reads=40,partial=true,cut=true",
                                    "conditional-beam:length=6,width=3,expand=2",
                                    "tree:span=3,branch=2,simulations=8,rollout=3",
                                    "superposed:k=3",
                                    "icn:n=4,m=2"};

/// Returns the bytes of all pages and states in use.
size_t bytes_in_use(const Session& session) { return session.engine().pages().budget()->in_use(); }

void expect_equal(const SearchResult& a, const SearchResult& b) {
  ASSERT_EQ(a.hypotheses.size(), b.hypotheses.size());
  for (size_t i = 0; i < a.hypotheses.size(); ++i) {
    EXPECT_EQ(a.hypotheses[i].tokens, b.hypotheses[i].tokens);
    EXPECT_EQ(a.hypotheses[i].log_probability, b.hypotheses[i].log_probability);
    EXPECT_EQ(a.hypotheses[i].score, b.hypotheses[i].score);
    EXPECT_EQ(a.hypotheses[i].ended, b.hypotheses[i].ended);
  }
  EXPECT_EQ(a.tokens_read, b.tokens_read);
  EXPECT_EQ(a.forwards, b.forwards);
}

TEST(Search, LogProbabilitiesAreThoseOfTheModel) {
  const SearchBench random = words();
  for (const std::string& spec : kAll) {
    SCOPED_TRACE(spec);
    for (const Hypothesis& h : random.run(spec, 12).hypotheses) {
      EXPECT_NEAR(h.log_probability, random.log_probability(h.tokens, h.ended), 1e-4);
      EXPECT_LE(std::ssize(h.tokens), 12);
    }
    // In a quantised model, reading tokens together or one by one rounds activations to other 8-bit steps.
    const bool one_pass = spec.starts_with("superposed") || spec.starts_with("icn");
    const SearchBench quantised = house("The old man went down to the sea, and he");
    for (const Hypothesis& h : quantised.run(spec, 8).hypotheses)
      EXPECT_NEAR(h.log_probability, quantised.log_probability(h.tokens, h.ended), one_pass ? 5e-2 : 1e-4);
  }
}

TEST(Search, FreesAllPagesAndLeavesTheSessionUnchanged) {
  const SearchBench bench = words();
  for (const std::string& spec : kAll) {
    SCOPED_TRACE(spec);
    Session session = bench.read();
    const std::vector<float> logits(session.logits().begin(), session.logits().end());
    const size_t before = bytes_in_use(session);
    size_t most = 0;
    SearchTask task = bench.task(session, 70);  // into a second page
    int64_t reported = 0;
    task.progress = [&](int64_t tokens_read) {
      EXPECT_GT(tokens_read, reported);
      reported = tokens_read;
      most = std::max(most, bytes_in_use(session));
    };
    const SearchResult result = search_methods().make(spec)->run(task);
    EXPECT_EQ(reported, result.tokens_read);
    EXPECT_GE(result.tokens_read, result.forwards);
    EXPECT_GT(most, before);
    EXPECT_EQ(bytes_in_use(session), before);
    EXPECT_EQ(session.length(), std::ssize(bench.prompt));
    EXPECT_EQ(std::vector<float>(session.logits().begin(), session.logits().end()), logits);
  }
}

TEST(Search, ResultsDoNotDependOnTheNumberOfThreads) {
  SearchBench bench = words();
  for (const std::string& spec : kAll) {
    SCOPED_TRACE(spec);
    bench.threads = 1;
    const SearchResult one = bench.run(spec, 10);
    bench.threads = 3;
    expect_equal(one, bench.run(spec, 10));
  }
}

TEST(Search, StopsWhenProgressThrows) {
  const SearchBench bench = words();
  for (const std::string& spec : kAll) {
    SCOPED_TRACE(spec);
    Session session = bench.read();
    const size_t before = bytes_in_use(session);
    SearchTask task = bench.task(session, 20);
    task.progress = [](int64_t) { throw Error("stop", Error::Kind::kInterrupted); };
    EXPECT_THROW(search_methods().make(spec)->run(task), Error);
    EXPECT_EQ(bytes_in_use(session), before);
  }
}

TEST(Search, RespectsTheContextLimit) {
  SearchBench bench = words();
  for (const std::string& spec : kAll) {
    SCOPED_TRACE(spec);
    for (const int64_t room : {0, 1, 7}) {
      bench.options.context = std::ssize(bench.prompt) + room;
      if (spec.starts_with("conditional-beam") && room < 6) {
        EXPECT_THROW(bench.run(spec, 50), Error);
        continue;
      }
      for (const Hypothesis& h : bench.run(spec, 50).hypotheses) EXPECT_LE(std::ssize(h.tokens), room + 1);
    }
  }
}

TEST(Search, ConstraintsRestrictTokensAndKeepLogProbabilities) {
  const SearchBench bench = words();
  std::set<int32_t> allowed{bench.tokenizer->vocabulary().end_of_generation.front()};
  for (int32_t id = 40; id < bench.tokenizer->size(); id += 3) allowed.insert(id);
  const AllowedTokens constraint(allowed);
  for (const std::string& spec : kAll) {
    SCOPED_TRACE(spec);
    for (const Hypothesis& h : bench.run(spec, 8, &constraint).hypotheses) {
      for (const int32_t token : h.tokens) EXPECT_TRUE(allowed.contains(token)) << token;
      EXPECT_NEAR(h.log_probability, bench.log_probability(h.tokens, h.ended), 1e-4);
    }
  }
}

TEST(Search, RejectsTasksThatCannotBeRun) {
  const SearchBench bench = words();
  for (const std::string& spec : kAll) {
    SCOPED_TRACE(spec);
    const auto search = search_methods().make(spec);
    EXPECT_THROW(search->run({}), Error);
    Session empty(bench.model, std::make_shared<Runtime>(1));
    EXPECT_THROW(search->run(bench.task(empty, 5)), Error);
    Session session = bench.read();
    EXPECT_THROW(search->run(bench.task(session, 0)), Error);
  }
}

TEST(Search, RejectsInvalidParameters) {
  for (const char* spec :
       {"beam:width=0", "beam:length_penalty=-1", "diverse-beam:width=4,groups=3", "diverse-beam:penalty=-1",
        "diverse-beam:kind=cosine", "exact:batch=0", "exact:max_reads=0", "conditional-beam:length=0",
        "tree:span=0", "tree:branch=0", "tree:backup=median", "superposed:k=0", "superposed:temperature=0",
        "icn:n=0", "icn:wording=nothing"})
    EXPECT_THROW(search_methods().make(spec), Error) << spec;
}

}  // namespace
}  // namespace fathom
