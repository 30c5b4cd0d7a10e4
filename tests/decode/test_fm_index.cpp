#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
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
  for (const int32_t token : {0, 1, 151'935, (1 << 24) - 1}) {
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
  for (const int32_t token : {-1, INT32_MIN, 1 << 24, INT32_MAX})
    EXPECT_THROW(FmIndex(Passages{{1, token}}), Error);
}

}  // namespace
}  // namespace fathom
