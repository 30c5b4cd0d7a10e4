#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <memory>
#include <random>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "byte_vocabulary.h"
#include "decode/constrained_beam.h"
#include "decode/retrieve.h"
#include "default_model.h"
#include "paths.h"
#include "seed.h"

namespace fathom {
namespace {

using test::loaded;
using test::read;

std::vector<std::string_view> views(const std::vector<std::string>& strings) {
  return {strings.begin(), strings.end()};
}

QueryNgram ngram(const Tokenizer& tokenizer, const std::string& text, double log_probability) {
  return {tokenizer.encode(text, {.add_bos_eos = false}), log_probability};
}

TEST(Retrieve, WeightEqualsItsFormula) {
  const auto formula = [](double s, double count, double tokens) {
    const double t = std::log((count + 5) / (tokens + 5));
    const double odds = s + std::log(1 - std::exp(t)) - t - std::log(1 - std::exp(s));
    return odds > 0 ? odds * odds : 0;
  };
  for (const double s : {-0.01, -1.0, -5.0, -12.0}) {
    for (const int64_t count : {1, 40, 900})
      EXPECT_NEAR(ngram_weight(s, count, 1000), formula(s, count, 1000), 1e-6) << s << " " << count;
  }
  // log(1/2 / (1/2)) − log(0.1 / 0.9) = log 9
  EXPECT_NEAR(ngram_weight(std::log(0.5), 5, 95), std::pow(std::log(9.0), 2), 1e-9);
  EXPECT_EQ(ngram_weight(-20, 900, 1000), 0) << "less likely than in the corpus";
  EXPECT_EQ(ngram_weight(-1, 1000, 1000), 0) << "all of the corpus";
  for (const double certain : {0.0, 1e-12, 1e-6}) {  // rounding may give log-probabilities above 0
    EXPECT_TRUE(std::isfinite(ngram_weight(certain, 1, 1000)));
    EXPECT_GT(ngram_weight(certain, 1, 1000), ngram_weight(-1e-6, 1, 1000));
  }
  EXPECT_EQ(ngram_weight(-std::numeric_limits<double>::infinity(), 1, 1000), 0);
}

TEST(Retrieve, ScoresCoverEachPositionOnceAndDiscountKnownTokens) {
  const auto tokenizer = test::byte_tokenizer({});
  const std::vector<std::string> passages = {"abcdxabcd", "bcdy", "zzzz", "cd", std::string(3000, 'q')};
  const PassageRetriever retriever(*tokenizer, views(passages));
  const auto result =
      retriever.rank({ngram(*tokenizer, "abcd", -1), ngram(*tokenizer, "bcd", -1), ngram(*tokenizer, "cdx", -2),
                      ngram(*tokenizer, "nope", -1), ngram(*tokenizer, "q", -4), ngram(*tokenizer, "", -1)},
                     {});
  ASSERT_EQ(result.ngrams.size(), 3);  // "nope" does not occur; "q" is more likely in the corpus
  const auto weight = [&](const std::string& text) {
    const auto tokens = tokenizer->encode(text, {.add_bos_eos = false});
    return std::ranges::find(result.ngrams, tokens, &QueryNgram::tokens)->weight;
  };
  EXPECT_EQ(result.ngrams[0].count, 2);
  ASSERT_EQ(result.passages.size(), 2);
  // "abcd" covers [0, 4). "bcd" covers [6, 9), where "abcd" is not counted twice, with no new tokens. "cdx"
  // overlaps both.
  EXPECT_EQ(result.passages[0].passage, 0);
  EXPECT_NEAR(result.passages[0].score, weight("abcd") + 0.2 * weight("bcd"), 1e-9);
  EXPECT_EQ(result.passages[1].passage, 1);
  EXPECT_NEAR(result.passages[1].score, weight("bcd"), 1e-9);
}

TEST(Retrieve, FrequentNgramsDoNotSelectPassagesButCountInThem) {
  const auto tokenizer = test::byte_tokenizer({});
  const std::vector<std::string> passages = {"ab", "abxy", "ab", "ab"};
  const PassageRetriever retriever(*tokenizer, views(passages));
  const auto rank = [&](RetrieveOptions options) {
    return retriever.rank({ngram(*tokenizer, "ab", -0.1), ngram(*tokenizer, "xy", -0.1)}, options).passages;
  };
  EXPECT_EQ(rank({}).size(), 4);
  EXPECT_EQ(rank({}).front().passage, 1);
  EXPECT_EQ(rank({.passages = 2}).size(), 2);
  const auto few = rank({.max_count = 3});
  ASSERT_EQ(few.size(), 1);
  EXPECT_EQ(few[0].ngrams.size(), 2);
  EXPECT_EQ(rank({.rescored = 2}).size(), 2);
}

TEST(Retrieve, GeneratedNgramsOccurInThePassages) {
  const std::vector<std::string> passages = {"The old harbour was quiet.", "The magic word of Anna is lantern.",
                                             "Nobody saw the lantern in the tower.", "A ship came to the harbour."};
  const PassageRetriever retriever(loaded().tokenizer, views(passages));
  const auto ngrams =
      retriever.generate(read("Question: What is the magic word of Anna? Answer:"), {.width = 8, .length = 6});
  EXPECT_GT(ngrams.size(), 20);
  size_t longest = 0;
  std::set<std::vector<int32_t>> distinct;
  for (const QueryNgram& ngram : ngrams) {
    EXPECT_GT(retriever.index().find(ngram.tokens).count(), 0);
    EXPECT_LE(ngram.log_probability, 0);
    longest = std::max(longest, ngram.tokens.size());
    distinct.insert(ngram.tokens);
  }
  EXPECT_EQ(longest, 6);
  EXPECT_EQ(distinct.size(), ngrams.size());
}

TEST(Retrieve, CorpusWithoutTokensIsReported) {
  EXPECT_THROW(PassageRetriever(loaded().tokenizer, {}), Error);
  EXPECT_THROW(PassageRetriever(*test::byte_tokenizer({}), {""}), Error);
}

/// Passages of a text, and queries: a fragment of a passage in which every fourth word is replaced by another one.
class RetrievalCorpus {
 public:
  explicit RetrievalCorpus(std::mt19937& random) : random_(random) {
    std::ifstream file(test::data_path("prose.txt"));
    for (std::string word; file >> word;) words_.push_back(word);
    for (size_t i = 0; i < count(); ++i) passages_.push_back(join({words_.begin() + i * kWords, kWords}));
  }
  size_t count() const { return words_.size() / kWords; }
  const std::vector<std::string>& passages() const { return passages_; }
  /// Returns a prompt after which the model repeats the fragment.
  std::string query(size_t passage) {
    const size_t begin = passage * kWords + random_() % (kWords - kFragment);
    std::vector<std::string> fragment(words_.begin() + begin, words_.begin() + begin + kFragment);
    for (size_t i = 3; i < fragment.size(); i += 4) fragment[i] = words_[random_() % words_.size()];
    return "The magic text of Anna is " + join(fragment) +
           "\nQuestion: What is the magic text of Anna?\nAnswer: The magic text of Anna is";
  }

 private:
  static constexpr size_t kWords = 24, kFragment = 12;
  static std::string join(std::span<const std::string> words) {
    std::string text;
    for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
    return text;
  }
  std::mt19937& random_;
  std::vector<std::string> words_;
  std::vector<std::string> passages_;
};

TEST(Retrieve, FindsMorePassagesThanUnconstrainedGenerationWithExactMatch) {
  constexpr int kQueries = 6;
  std::mt19937 random(test::seed(1));
  RetrievalCorpus corpus(random);
  const PassageRetriever retriever(loaded().tokenizer, views(corpus.passages()));
  int constrained = 0, first = 0, whole = 0, partial = 0;
  for (int i = 0; i < kQueries; ++i) {
    const auto target = static_cast<int64_t>(random() % corpus.count());
    const Session session = read(corpus.query(static_cast<size_t>(target)));
    const auto in_top = [&](const RetrieveResult& result) {
      return std::ranges::count(result.passages, target, &RankedPassage::passage) > 0;
    };
    const RetrieveResult result = retriever.retrieve(session);
    constrained += in_top(result);
    first += !result.passages.empty() && result.passages[0].passage == target;
    // the same search and the same scores without the constraint: by the generated texts, and also by their
    // prefixes
    std::vector<QueryNgram> texts, prefixes;
    for (const Hypothesis& text : constrained_beam(session, loaded().tokenizer, nullptr, {.keep_partial = true})) {
      prefixes.push_back({text.tokens, text.log_probability});
      if (text.ended || text.tokens.size() == 10) texts.push_back(prefixes.back());
    }
    whole += in_top(retriever.rank(texts, {}));
    partial += in_top(retriever.rank(prefixes, {}));
  }
  std::printf("top 10 of %zu passages, %d queries: constrained %d (first %d), unconstrained %d, with prefixes %d\n",
              corpus.count(), kQueries, constrained, first, whole, partial);
  EXPECT_GT(constrained, whole);
}

}  // namespace
}  // namespace fathom
