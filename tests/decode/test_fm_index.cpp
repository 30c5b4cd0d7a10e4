#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "decode/constraints/fm_index.h"
#include "seed.h"

namespace fathom {
namespace {

using Passages = std::vector<std::vector<int32_t>>;
using Ngram = std::vector<int32_t>;

/// Returns the positions of an n-gram, as (passage, first token).
std::set<std::pair<int64_t, int64_t>> positions(const Passages& passages, const Ngram& ngram) {
  std::set<std::pair<int64_t, int64_t>> found;
  for (int64_t p = 0; p < std::ssize(passages); ++p) {
    for (auto at = passages[p].begin();; ++at) {
      at = std::search(at, passages[p].end(), ngram.begin(), ngram.end());
      if (at == passages[p].end()) break;
      found.emplace(p, at - passages[p].begin());
    }
  }
  return found;
}

/// Returns how often each token follows an n-gram.
std::map<int32_t, int64_t> followers(const Passages& passages, const Ngram& ngram) {
  std::map<int32_t, int64_t> counts;
  for (const auto& passage : passages) {
    for (size_t i = 0; i + ngram.size() < passage.size(); ++i)
      if (std::equal(ngram.begin(), ngram.end(), passage.begin() + i)) ++counts[passage[i + ngram.size()]];
  }
  return counts;
}

void expect_equal(const FmIndex& index, const Passages& passages, const Ngram& ngram) {
  const FmIndex::Range range = index.find(ngram);
  const auto expected = positions(passages, ngram);
  if (!ngram.empty()) {
    ASSERT_EQ(range.count(), std::ssize(expected));
    std::set<std::pair<int64_t, int64_t>> found;
    for (const auto& at : index.locate(range, std::ssize(ngram))) found.emplace(at.passage, at.begin);
    ASSERT_EQ(found, expected);
  }
  std::map<int32_t, int64_t> counts;
  for (const FmIndex::Successor& successor : index.successors(range)) {
    counts[successor.token] = successor.range.count();
    const FmIndex::Range appended = index.append(range, successor.token);
    ASSERT_EQ(std::pair(appended.begin, appended.end), std::pair(successor.range.begin, successor.range.end));
  }
  ASSERT_EQ(counts, followers(passages, ngram));
}

Passages random_passages(std::mt19937& random, int count, int length, const std::vector<int32_t>& alphabet) {
  Passages passages(static_cast<size_t>(count));
  for (auto& passage : passages) {
    passage.resize(random() % static_cast<unsigned>(length + 1));
    for (int32_t& token : passage) token = alphabet[random() % alphabet.size()];
  }
  return passages;
}

TEST(FmIndex, CountsPositionsAndSuccessorsEqualBruteForce) {
  std::mt19937 random(test::seed(1));
  for (int trial = 0; trial < 36; ++trial) {
    std::vector<int32_t> alphabet(trial % 3 == 0 ? 2 : trial % 3 == 1 ? 12 : 300);
    for (int32_t& token : alphabet) token = static_cast<int32_t>(random() % 150'000);
    alphabet[0] = 0;
    const Passages passages = random_passages(random, 1 + trial % 7, trial % 4 == 0 ? 3 : 60, alphabet);
    const FmIndex index(passages);
    int64_t tokens = 0;
    for (const auto& passage : passages) tokens += std::ssize(passage);
    ASSERT_EQ(index.tokens(), tokens);
    expect_equal(index, passages, {});
    for (int query = 0; query < 40; ++query) {
      Ngram ngram(1 + random() % 4);
      for (int32_t& token : ngram) token = alphabet[random() % alphabet.size()];
      expect_equal(index, passages, ngram);
    }
    for (const auto& passage : passages) {  // n-grams that occur
      if (passage.empty()) continue;
      const size_t begin = random() % passage.size(), length = 1 + random() % (passage.size() - begin);
      expect_equal(index, passages, Ngram(passage.begin() + begin, passage.begin() + begin + length));
    }
  }
}

TEST(FmIndex, EveryWalkThroughSuccessorsOccursInAPassage) {
  std::mt19937 random(test::seed(2));
  const Passages passages = random_passages(random, 30, 40, {1, 2, 3, 4, 5, 6, 7});
  const FmIndex index(passages);
  size_t longest = 0;
  for (int walk = 0; walk < 300; ++walk) {
    Ngram ngram;
    FmIndex::Range range = index.all();
    for (auto next = index.successors(range); !next.empty(); next = index.successors(range)) {
      const FmIndex::Successor& chosen = next[random() % next.size()];
      ngram.push_back(chosen.token);
      range = chosen.range;
    }
    ASSERT_EQ(std::ssize(positions(passages, ngram)), range.count());
    ASSERT_GT(range.count(), 0);
    longest = std::max(longest, ngram.size());
  }
  EXPECT_GT(longest, 10);
}

TEST(FmIndex, NgramsDoNotCrossTheEndOfAPassage) {
  const Passages passages = {{5, 6}, {7, 5}, {6}};
  const FmIndex index(passages);
  EXPECT_EQ(index.find(Ngram{5, 6}).count(), 1);
  EXPECT_EQ(index.find(Ngram{6, 7}).count(), 0);
  EXPECT_EQ(index.successors(index.find(Ngram{5})).size(), 1);  // 6 in the first passage only
  EXPECT_TRUE(index.successors(index.find(Ngram{6})).empty());
}

TEST(FmIndex, TextsWithoutTokensAndWithOneToken) {
  for (const Passages& passages : {Passages{}, Passages{{}}, Passages{{}, {}, {}}}) {
    const FmIndex index(passages);
    EXPECT_EQ(index.tokens(), 0);
    EXPECT_TRUE(index.successors(index.all()).empty());
    EXPECT_EQ(index.find(Ngram{0}).count(), 0);
    EXPECT_TRUE(index.locate(index.find(Ngram{0}), 1).empty());
  }
  for (const int32_t token : {0, 1, 151'935, 1 << 24, INT32_MAX}) {
    const Passages passages = {{token}};
    const FmIndex index(passages);
    expect_equal(index, passages, {});
    expect_equal(index, passages, {token});
    expect_equal(index, passages, {token, token});
    EXPECT_EQ(index.find(Ngram{token == 0 ? 1 : token - 1}).count(), 0);
  }
}

TEST(FmIndex, RepeatedTokensAndAllIdsOfAVocabulary) {
  const Passages same = {Ngram(500, 3)};
  const FmIndex index(same);
  EXPECT_EQ(index.find(Ngram(200, 3)).count(), 301);
  EXPECT_EQ(index.find(Ngram(500, 3)).count(), 1);
  EXPECT_EQ(index.find(Ngram(501, 3)).count(), 0);

  Passages each(1);
  for (int32_t token = 0; token < 4096; ++token) each[0].push_back(token);
  const FmIndex whole(each);
  const auto all = whole.successors(whole.all());
  ASSERT_EQ(all.size(), 4096);
  for (int32_t token = 0; token < 4096; ++token) ASSERT_EQ(all[token].token, token);
  EXPECT_EQ(whole.successors(all[17].range).front().token, 18);
}

TEST(FmIndex, TokensThatAreNotInTheTextAreNotFound) {
  const Passages passages = {{2, 9, 2}};
  const FmIndex index(passages);
  for (const int32_t token : {-1, INT32_MIN, 0, 3, 10, INT32_MAX}) {
    EXPECT_EQ(index.append(index.all(), token).count(), 0);
    EXPECT_EQ(index.append(index.find(Ngram{2}), token).count(), 0);
  }
}

TEST(FmIndex, AlphabetsOfAnySizeAndIdsOfAnySizeEqualBruteForce) {
  std::mt19937 random(test::seed(3));
  for (const int size : {1, 2, 3, 300}) {
    for (const bool large : {false, true}) {
      std::vector<int32_t> alphabet;
      for (int i = 0; i < size; ++i) alphabet.push_back(large ? INT32_MAX - i * (INT32_MAX / size) : i);
      const Passages passages = random_passages(random, 8, 1000, alphabet);
      const FmIndex index(passages);
      expect_equal(index, passages, {});
      for (int query = 0; query < 12; ++query) {
        Ngram ngram(1 + random() % 3);
        for (int32_t& token : ngram) token = alphabet[random() % alphabet.size()];
        expect_equal(index, passages, ngram);
      }
    }
  }
}

TEST(FmIndex, HundredThousandIdsOfUpTo31Bits) {
  std::mt19937 random(test::seed(4));
  std::vector<int32_t> alphabet(100'000);
  for (int32_t i = 0; i < std::ssize(alphabet); ++i) alphabet[i] = INT32_MAX - i * 21'000;
  std::vector<int32_t> text = alphabet;
  text.insert(text.end(), alphabet.begin(), alphabet.begin() + 20'000);  // these occur twice
  std::ranges::shuffle(text, random);
  Passages passages;
  for (size_t i = 0; i < text.size(); i += 500) passages.emplace_back(text.begin() + i, text.begin() + i + 500);
  const FmIndex index(passages);

  const auto all = index.successors(index.all());
  ASSERT_EQ(all.size(), alphabet.size());
  for (int64_t i = 0; i < std::ssize(all); ++i) {
    const int64_t a = std::ssize(all) - 1 - i;
    ASSERT_EQ(all[i].token, alphabet[a]);
    ASSERT_EQ(all[i].range.count(), a < 20'000 ? 2 : 1);
  }
  for (int query = 0; query < 10; ++query) {
    const auto& passage = passages[random() % passages.size()];
    const size_t begin = random() % 499;
    expect_equal(index, passages, {passage[begin]});
    expect_equal(index, passages, {passage[begin], passage[begin + 1]});
    expect_equal(index, passages, {passage[begin], alphabet[random() % alphabet.size()]});
    EXPECT_EQ(index.append(index.all(), passage[begin] - 1).count(), 0);
  }
}

/// Returns all n-grams of a length with their positions.
std::map<Ngram, std::set<std::pair<int64_t, int64_t>>> all_ngrams(const Passages& passages, size_t length) {
  std::map<Ngram, std::set<std::pair<int64_t, int64_t>>> found;
  for (int64_t p = 0; p < std::ssize(passages); ++p)
    for (size_t i = 0; i + length <= passages[p].size(); ++i)
      found[Ngram(passages[p].begin() + i, passages[p].begin() + i + length)].emplace(p, i);
  return found;
}

TEST(FmIndex, AllNgramsOfLargerTextsEqualBruteForce) {
  std::mt19937 random(test::seed(5));
  for (const int size : {2, 40, 5'000}) {
    std::vector<int32_t> alphabet(static_cast<size_t>(size));
    for (int32_t& token : alphabet) token = static_cast<int32_t>(random() >> 1);
    Passages passages = random_passages(random, 12, 1'000, alphabet);
    for (auto& passage : passages) {  // long repetitions
      const size_t length = passage.size() / 3;
      if (random() % 2 == 0) std::copy_n(passage.begin(), length, passage.end() - length);
    }
    passages.push_back(passages[0]);
    const FmIndex index(passages, {.sample_rate = 32});
    for (const size_t length : {1, 2, 7}) {
      for (const auto& [ngram, expected] : all_ngrams(passages, length)) {
        const FmIndex::Range range = index.find(ngram);
        ASSERT_EQ(range.count(), std::ssize(expected));
        std::set<std::pair<int64_t, int64_t>> found;
        for (const auto& at : index.locate(range, std::ssize(ngram))) found.emplace(at.passage, at.begin);
        ASSERT_EQ(found, expected);
      }
    }
  }
}

TEST(FmIndex, PeriodicTextsEqualBruteForce) {
  // The suffix array of a Fibonacci word and of periodic texts needs many levels of recursion.
  Ngram fibonacci = {7}, previous = {9};
  while (fibonacci.size() < 2'000) {
    const Ngram last = fibonacci;
    fibonacci.insert(fibonacci.end(), previous.begin(), previous.end());
    previous = last;
  }
  Passages passages = {fibonacci, {}, {}};
  for (int i = 0; i < 600; ++i) {
    passages[1].push_back(i % 2 == 0 ? 7 : 9);
    passages[2].push_back(i % 3 == 0 ? 9 : 7);
  }
  const FmIndex index(passages);
  for (const size_t length : {1, 5, 30})
    for (const auto& ngram : all_ngrams(passages, length)) expect_equal(index, passages, ngram.first);
}

TEST(FmIndex, ResultsDoNotDependOnTheSampleRate) {
  std::mt19937 random(test::seed(6));
  const Passages passages = random_passages(random, 5, 100, {1, 2, 3});
  for (const int rate : {1, 2, 3, 32, 1'000, INT32_MAX}) {
    const FmIndex index(passages, {.sample_rate = rate});
    for (const int32_t token : {1, 2, 3}) expect_equal(index, passages, {token});
  }
}

TEST(FmIndex, SizesAroundTheBlocksOfTheBitVectors) {
  for (int rows = 126; rows <= 1'026; ++rows) {
    if ((rows + 2) % 64 > 4) continue;
    Passages passages(1);  // rows: the tokens, the end of the passage and the end of the text
    for (int i = 0; i < rows - 2; ++i) passages[0].push_back(i % 5 == 0 ? 1 : i % 3);
    const FmIndex index(passages);
    ASSERT_EQ(index.all().count(), rows);
    for (const int32_t token : {0, 1, 2}) expect_equal(index, passages, {token});
  }
}

TEST(FmIndex, ErrorsNameTheTokenTheLengthAndTheRate) {
  const auto message = [](const Passages& passages, const FmIndexOptions& options) {
    try {
      const FmIndex index(passages, options);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(message({{1, -1}}, {}), "an index of tokens needs ids of at least 0, found -1");
  EXPECT_EQ(message({{INT32_MIN}}, {}), "an index of tokens needs ids of at least 0, found -2147483648");
  EXPECT_EQ(message({{1, 2}, {3}}, {.max_length = 5}), "");
  EXPECT_EQ(message({{1, 2}, {3}}, {.max_length = 4}),
            "an index of tokens holds at most 4 tokens and ends of passages, found 5");
  EXPECT_EQ(message({{1}}, {.sample_rate = 0}), "an index of tokens needs a sample rate of at least 1, found 0");
}

}  // namespace
}  // namespace fathom
