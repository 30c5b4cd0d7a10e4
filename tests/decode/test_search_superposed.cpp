// Superposed decoding and in-context navigation.
#include <gtest/gtest.h>

#include <fstream>

#include "attend/methods.h"
#include "search_bench.h"

namespace fathom {
namespace {

using test::house;
using test::SearchBench;
using test::tiny;
using test::words;
using Tokens = std::vector<int32_t>;

const std::string kStart = "The old man went down to the sea, and he";

TEST(Superposed, WithOneDraftAndNoNgramsIsGreedy) {
  for (const SearchBench& bench : {house(kStart), words(), tiny(8)}) {
    const SearchResult result = bench.run("superposed:k=1,alpha=0", 24);
    ASSERT_EQ(result.hypotheses.size(), 1);
    EXPECT_EQ(result.hypotheses[0].tokens, bench.greedy(24));
  }
}

TEST(Superposed, ReadsOneRowPerTokenForAllDrafts) {
  const SearchBench bench = house(kStart);
  const SearchResult result = bench.run("superposed:k=3", 20);
  ASSERT_EQ(result.hypotheses.size(), 3);
  for (const Hypothesis& h : result.hypotheses) ASSERT_EQ(h.tokens.size(), 20);
  EXPECT_EQ(result.forwards, 19 + 3);  // the last token is not read; then one pass per draft
  EXPECT_EQ(result.tokens_read, 19 + 3 * 19);
}

TEST(Superposed, DraftsDifferAndAreRankedByTrueLogProbability) {
  const SearchBench bench = house(kStart);
  const auto found = bench.run("superposed:k=3", 16).hypotheses;
  std::set<Tokens> distinct;
  for (size_t i = 0; i < found.size(); ++i) {
    distinct.insert(found[i].tokens);
    EXPECT_EQ(found[i].score, found[i].log_probability);
    EXPECT_GE(found[i == 0 ? 0 : i - 1].score, found[i].score);
  }
  EXPECT_EQ(distinct.size(), 3);
}

/// Reads tokens or embeddings into a new sequence and returns the logits after the last row.
std::vector<float> read(Engine& engine, Sequence& sequence, std::span<const int32_t> tokens,
                        std::span<const float> embeddings) {
  const auto selector = attend_methods().make("dense");
  Rows rows;
  rows.sequence = &sequence;
  rows.policy.selector = selector.get();
  rows.tokens = tokens;
  rows.embeddings = embeddings;
  const int64_t last = rows.count(engine.model().config().width) - 1;
  rows.output_rows = {&last, 1};
  engine.forward({&rows, 1});
  rows.result.throw_if_failed();
  return rows.result.logits;
}

TEST(Superposed, EmbeddingsAreThoseOfTheForwardPass) {
  for (const SearchBench& bench : {house(kStart), words()}) {
    Session session = bench.read();
    const Tokens tokens{265, 7, 261};
    std::vector<float> embeddings(tokens.size() * bench.model->config().width);
    bench.model->network().embeddings(session.runtime().work(), tokens, embeddings.data());
    Engine& engine = session.engine();
    Sequence by_token = engine.new_sequence({}), by_embedding = engine.new_sequence({});
    EXPECT_EQ(read(engine, by_token, tokens, {}), read(engine, by_embedding, {}, embeddings));
  }
}

/// Without n-grams, all drafts have the same next tokens, so the best extensions of two drafts are those of the
/// better one, unless the other one is nearly as likely.
TEST(Superposed, TwoDraftsEqualAPlainComputation) {
  const SearchBench bench = words();
  constexpr int64_t kLength = 6;
  Session session = bench.read();
  Sequence sequence = session.sequence().fork();
  std::vector<float> logits(session.logits().begin(), session.logits().end());
  struct Draft {
    Tokens tokens;
    double score;
  };
  std::vector<Draft> drafts{{{}, 0}};
  const int64_t width = bench.model->config().width;
  for (int64_t step = 0; step < kLength; ++step) {
    std::vector<Draft> all;
    double sum = 0;
    for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
    std::vector<double> p;
    for (const float logit : logits) p.push_back(std::exp(static_cast<double>(logit)) / sum);
    for (const Draft& draft : drafts) {
      for (int32_t token = 0; token < std::ssize(p); ++token) {
        all.push_back({draft.tokens, draft.score + std::log(p[token])});
        all.back().tokens.push_back(token);
      }
    }
    std::ranges::partial_sort(all, all.begin() + 2, std::greater{}, &Draft::score);
    drafts.assign(all.begin(), all.begin() + 2);
    if (step + 1 == kLength) break;
    std::vector<float> row(width), embedding(width);
    const double total = std::exp(drafts[0].score) + std::exp(drafts[1].score);
    for (const Draft& draft : drafts) {
      bench.model->network().embeddings(session.runtime().work(), {&draft.tokens.back(), 1}, embedding.data());
      for (int64_t i = 0; i < width; ++i)
        row[i] += static_cast<float>(std::exp(draft.score) / total * embedding[i]);
    }
    logits = read(session.engine(), sequence, {}, row);
  }
  const SearchResult result = bench.run("superposed:k=2,alpha=0,temperature=1,top=300", kLength);
  std::set<Tokens> found, expected{drafts[0].tokens, drafts[1].tokens};
  for (const Hypothesis& h : result.hypotheses) found.insert(h.tokens);
  EXPECT_EQ(found, expected);
}

TEST(Superposed, NgramsOfTheTextSelectItsContinuation) {
  const SearchBench bench = words();
  const std::string path = testing::TempDir() + "superposed_ngrams.txt",
                    text = "the old sea on red stone grass sky";
  std::ofstream(path) << text;
  const Tokens all = bench.tokenizer->encode(text);
  ASSERT_TRUE(std::equal(bench.prompt.begin(), bench.prompt.end(), all.begin()));
  const Tokens rest(all.begin() + std::ssize(bench.prompt), all.end());
  EXPECT_NE(bench.greedy(std::ssize(rest)), rest);
  // The score is that of the n-grams alone.
  const SearchResult found = bench.run("superposed:k=1,alpha=1,top=300,file=" + path, std::ssize(rest));
  EXPECT_EQ(found.hypotheses[0].tokens, rest);
}

TEST(Superposed, ReportsAMissingFile) { EXPECT_THROW(words().run("superposed:file=/nonexistent/text", 4), Error); }

/// Returns the texts of answers, from their tokens.
std::vector<std::string> texts(const SearchBench& bench, const SearchResult& result) {
  std::vector<std::string> all;
  for (const Hypothesis& h : result.hypotheses) {
    std::string text = bench.tokenizer->decode(h.tokens);
    text = text.substr(std::min(text.find_first_not_of(" \n\t\r"), text.size()));
    text = text.substr(0, text.find('\n'));
    all.push_back(text.substr(0, text.find_last_not_of(" \t\r") + 1));
  }
  return all;
}

TEST(InContextNavigation, NoAnswerRepeats) {
  for (const SearchBench& bench : {house("Colours: red, blue and"), words()}) {
    const SearchResult result = bench.run("icn:n=10,m=3", 6);
    const auto all = texts(bench, result);
    EXPECT_EQ(std::set<std::string>(all.begin(), all.end()).size(), all.size());
    EXPECT_EQ(all.size(), 10);
  }
}

TEST(InContextNavigation, FirstRoundIsTheMostLikelyFirstTokens) {
  const SearchBench bench = house("The name of the captain is");
  const SearchResult result = bench.run("icn:n=9,m=3", 6);
  const std::vector<double> log_p = SearchBench::log_softmax(bench.read());
  Tokens order(log_p.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  std::ranges::sort(order, std::greater{}, [&](int32_t id) { return log_p[id]; });
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(result.hypotheses[i].tokens[0], order[i]);
    EXPECT_EQ(result.hypotheses[i].score, result.hypotheses[i].log_probability);
  }
  Tokens later;
  for (size_t i = 3; i < 9; ++i) {
    later.push_back(result.hypotheses[i].tokens[0]);
    EXPECT_NE(result.hypotheses[i].score, result.hypotheses[i].log_probability);
  }
  EXPECT_NE(later, Tokens(order.begin() + 3, order.begin() + 9));
}

TEST(InContextNavigation, AnswersEndWithTheirLine) {
  const SearchBench bench = house("Question: Who is there?\nAnswer: It is\n");
  for (const Hypothesis& h : bench.run("icn:n=6,m=3", 40).hypotheses) {
    const std::string before = bench.tokenizer->decode(std::span(h.tokens).first(h.tokens.size() - 1));
    const size_t begin = before.find_first_not_of(" \n");
    EXPECT_TRUE(begin == std::string::npos || before.find('\n', begin) == std::string::npos) << before;
  }
}

TEST(InContextNavigation, RejectsUnlikelyAnswers) {
  const SearchBench bench = house("The name of the captain is");
  const SearchResult all = bench.run("icn:n=8,m=4", 4);
  double least = 0;
  for (const Hypothesis& h : all.hypotheses)
    least = std::min(least, h.score / static_cast<double>(h.tokens.size() + h.ended));
  const SearchResult some = bench.run("icn:n=8,m=4,least=" + std::to_string(least / 2), 4);
  EXPECT_LT(some.hypotheses.size(), all.hypotheses.size());
  for (const Hypothesis& h : some.hypotheses)
    EXPECT_GE(h.score / static_cast<double>(h.tokens.size() + h.ended), least / 2 - 1e-6);
}

TEST(InContextNavigation, StopsWhenTheListDoesNotFit) {
  SearchBench bench = house("The name of the captain is");
  bench.options.context = std::ssize(bench.prompt) + 6;
  EXPECT_EQ(bench.run("icn:n=8,m=2", 4).hypotheses.size(), 2);
}

TEST(InContextNavigation, NeedsATokenizer) {
  const SearchBench bench = words();
  Session session = bench.read();
  SearchTask task = bench.task(session, 5);
  task.tokenizer = nullptr;
  EXPECT_THROW(search_methods().make("icn")->run(task), Error);
  EXPECT_EQ(search_methods().make("beam")->run(task).hypotheses.size(), 4);
}

}  // namespace
}  // namespace fathom
