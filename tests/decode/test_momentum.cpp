#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "decode/generate.h"
#include "decode/methods.h"
#include "paths.h"
#include "seed.h"

namespace fathom {

SampleEntry momentum_method();

namespace {

std::unique_ptr<SampleStep> momentum(const std::string& text = "momentum") {
  return MethodTable<SampleMethod>("sample", {momentum_method()}).make(text);
}

int32_t choose(const SampleStep& step, std::span<const float> logits, std::span<const int32_t> history) {
  Candidates candidates;
  candidates.assign(logits);
  step.apply(candidates, history);
  EXPECT_EQ(candidates.size(), 1);
  return candidates.all()[0].id;
}

/// Returns the largest n ≤ longest such that the last n − 1 tokens and `token` occur in the history, by comparing
/// with all of its substrings.
int brute_length(const std::vector<int32_t>& history, int32_t token, int longest) {
  int best = 0;
  for (int n = 1; n <= longest && n - 1 <= std::ssize(history); ++n) {
    std::vector<int32_t> pattern(history.end() - (n - 1), history.end());
    pattern.push_back(token);
    if (std::ranges::search(history, pattern)) best = n;
  }
  return best;
}

/// Returns the choice by the formula.
int32_t brute_choice(const std::vector<float>& logits, const std::vector<int32_t>& history, double alpha, int k,
                     int longest) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const std::vector<double> table{0, 1, 3, 4, 5, 5};
  double sum = 0;
  std::vector<int32_t> ids(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) ids[i] = static_cast<int32_t>(i), sum += std::exp(double{logits[i]});
  std::ranges::sort(ids, [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  ids.resize(std::min<size_t>(ids.size(), k));
  int32_t chosen = ids[0];
  double highest = -kInfinity;
  for (const int32_t id : ids) {
    const int length = brute_length(history, id, longest);
    const double score = std::exp(logits[id]) / sum - (length <= 5 ? alpha * table[length] : kInfinity);
    if (score > highest) highest = score, chosen = id;
  }
  return chosen;
}

std::vector<int32_t> random_history(std::mt19937& random, int length, int alphabet) {
  std::vector<int32_t> history(length);
  for (int32_t& token : history) token = static_cast<int32_t>(random() % alphabet);
  return history;
}

std::vector<float> random_logits(std::mt19937& random, int vocabulary) {
  std::normal_distribution<float> normal(0, 1);
  std::vector<float> logits(vocabulary);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

TEST(Momentum, EqualsExhaustiveSearchOnRandomStrings) {
  std::mt19937 random(test::seed(1));
  std::set<int> lengths;
  int changed = 0;
  for (const int n : {1, 3, 5, 8}) {
    const auto step = momentum("momentum:alpha=0.1,k=4,n=" + std::to_string(n));
    for (int i = 0; i < 400; ++i) {
      const auto history =
          random_history(random, static_cast<int>(random() % 300), 2 + static_cast<int>(random() % 6));
      const auto logits = random_logits(random, 9);
      const int32_t expected = brute_choice(logits, history, 0.1, 4, n);
      ASSERT_EQ(choose(*step, logits, history), expected) << "n " << n << ", string " << i;
      const auto likeliest = static_cast<int32_t>(std::ranges::max_element(logits) - logits.begin());
      lengths.insert(brute_length(history, likeliest, n));
      changed += expected != likeliest;
    }
  }
  EXPECT_GE(lengths.size(), 6) << "the most likely tokens repeat n-grams of many lengths";
  EXPECT_GT(changed, 400);
}

TEST(Momentum, LongHistoriesEqualExhaustiveSearch) {
  std::mt19937 random(test::seed(2));
  auto history = random_history(random, 100'000, 30);
  const auto step = momentum("momentum:alpha=0.05");
  for (int i = 0; i < 20; ++i) {
    const auto logits = random_logits(random, 30);
    EXPECT_EQ(choose(*step, logits, history), brute_choice(logits, history, 0.05, 5, 5));
    history.push_back(static_cast<int32_t>(random() % 30));
  }
}

TEST(Momentum, DependsOnlyOnTheHistoryAfterRewinds) {
  std::mt19937 random(test::seed(3));
  const auto step = momentum("momentum:alpha=0.1");
  auto history = random_history(random, 200, 3);
  for (int i = 0; i < 200; ++i) {
    history.resize(random() % (history.size() + 1));  // a rewind, then another continuation
    for (const int32_t token : random_history(random, 20, 3)) history.push_back(token);
    const auto logits = random_logits(random, 3);
    ASSERT_EQ(choose(*step, logits, history), brute_choice(logits, history, 0.1, 5, 5));
    ASSERT_EQ(choose(*step, logits, history), choose(*momentum("momentum:alpha=0.1"), logits, history));
  }
}

TEST(Momentum, AlphaZeroIsGreedy) {
  std::mt19937 random(test::seed(4));
  for (const char* spec : {"momentum:alpha=0", "momentum:alpha=0,n=64,k=100"}) {
    const auto step = momentum(spec);
    for (int i = 0; i < 100; ++i) {
      const auto logits = random_logits(random, 20);
      EXPECT_EQ(choose(*step, logits, random_history(random, 200, 2)),
                std::ranges::max_element(logits) - logits.begin());
    }
    EXPECT_EQ(choose(*step, std::vector<float>{0, 2, 1, 2, 2}, {}), 1) << "ties go to the lowest id";
  }
}

TEST(Momentum, PenaltiesFollowThePublishedTable) {
  // Token 1 would repeat an n-gram of n tokens, token 0 never occurred. The threshold of p(1) − p(0) is alpha·f(n).
  const std::vector<double> table{0, 1, 3, 4, 5, 5};
  const double alpha = 0.1;
  const auto step = momentum("momentum:alpha=0.1");
  for (int n = 1; n <= 5; ++n) {
    std::vector<int32_t> history{2, 3, 4, 5, 6};
    history.erase(history.begin(), history.end() - (n - 1));  // n − 1 tokens before token 1 and at the end
    std::vector<int32_t> end = history;
    history.push_back(1);
    history.push_back(7);
    history.insert(history.end(), end.begin(), end.end());
    for (const double margin : {-0.01, 0.01}) {
      const double difference = alpha * table[n] + margin;
      const std::vector<float> logits{static_cast<float>(std::log((1 - difference) / 2)),
                                      static_cast<float>(std::log((1 + difference) / 2))};
      EXPECT_EQ(choose(*step, logits, history), margin > 0 ? 1 : 0) << "n " << n << ", margin " << margin;
    }
  }
}

TEST(Momentum, NGramsBeyondTheTableAreNotRepeated) {
  const std::vector<int32_t> history{0, 2, 3, 4, 5, 6, 0, 2, 3, 4, 5};
  const std::vector<float> logits{-20, -20, -20, -20, -20, -20, 0, -10};  // 6 would complete an 11-gram
  EXPECT_EQ(choose(*momentum("momentum"), logits, history), 7) << "p(6) − 1 is less than p(7)";
  EXPECT_EQ(choose(*momentum("momentum:alpha=0.001"), logits, history), 6);
  EXPECT_EQ(choose(*momentum("momentum:alpha=0.001,n=6"), logits, history), 7);
  EXPECT_EQ(choose(*momentum("momentum:alpha=0.001,n=6,k=1"), logits, history), 6) << "nothing else to choose";
}

TEST(Momentum, NeverChoosesMaskedTokens) {
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  const std::vector<int32_t> history{1, 2, 1, 2, 1, 2, 1, 2, 1};
  EXPECT_EQ(choose(*momentum("momentum:alpha=10"), std::vector<float>{kNever, kNever, 0, kNever}, history), 2);
}

TEST(Momentum, EmptyHistoriesHaveNoPenalty) {
  EXPECT_EQ(choose(*momentum("momentum:alpha=100"), std::vector<float>{0, 1, 0.5}, {}), 1);
}

TEST(Momentum, RefusesParametersOutOfRange) {
  for (const char* spec : {"momentum:alpha=-0.1", "momentum:alpha=nan", "momentum:k=0", "momentum:k=101",
                           "momentum:n=0", "momentum:n=65", "momentum:beta=1"})
    EXPECT_THROW(momentum(spec), Error) << spec;
}

/// Returns the share of 4-grams that occurred before.
double repetition(std::span<const int32_t> tokens) {
  std::set<std::vector<int32_t>> distinct;
  const int64_t count = std::ssize(tokens) - 3;
  for (int64_t i = 0; i < count; ++i) distinct.emplace(tokens.begin() + i, tokens.begin() + i + 4);
  return 1 - static_cast<double>(distinct.size()) / static_cast<double>(count);
}

TEST(Momentum, EndsTheLoopsOfGreedyDecoding) {
  const auto model = Model::open(test::seedling_path());
  const Tokenizer tokenizer(Vocabulary::read(*model->file()));
  const auto runtime = std::make_shared<Runtime>(1);
  const auto step = momentum();
  int overridden = 0;
  const auto continue_with = [&](const std::string& prompt, const SampleStep* chooser) {
    Session session(model, runtime);
    std::vector<int32_t> history = tokenizer.encode(prompt), generated;
    session.append(history);
    for (int i = 0; i < 150; ++i) {
      const auto logits = session.logits();
      const auto best = static_cast<int32_t>(std::ranges::max_element(logits) - logits.begin());
      const int32_t token = chooser ? choose(*chooser, logits, history) : best;
      if (chooser) overridden += token != best;
      generated.push_back(token);
      history.push_back(token);
      session.append({&token, 1});
    }
    return generated;
  };
  double greedy = 0, resisted = 0;
  const std::vector<std::string> prompts{"The old man said that", "In the morning they went to the river and"};
  for (const std::string& prompt : prompts) {
    greedy += repetition(continue_with(prompt, nullptr)) / static_cast<double>(prompts.size());
    resisted += repetition(continue_with(prompt, step.get())) / static_cast<double>(prompts.size());
  }
  RecordProperty("greedy", std::to_string(greedy));
  RecordProperty("momentum", std::to_string(resisted));
  RecordProperty("overridden", std::to_string(overridden / 300.0));
  EXPECT_GT(greedy, 0.5);
  EXPECT_LT(resisted, 0.1);
}

}  // namespace
}  // namespace fathom
