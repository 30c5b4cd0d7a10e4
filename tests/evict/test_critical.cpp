// critical=true: half the budget by score, the rest by score times the norm of a value's output.
#include <gtest/gtest.h>

#include "base/error.h"
#include "evict/keep_rule.h"
#include "evict/value_norms.h"
#include "evicting.h"

namespace fathom {
namespace {

using test::Evicting;
using test::largest;

/// A norm that is easy to compute in tests: the absolute value of the first dimension.
void first_dimension(int, int64_t rows, const float* values, float* norms, ThreadPool&) {
  for (int64_t i = 0; i < 2 * rows; ++i) norms[i] = std::fabs(values[i * test::kValueDim]);
}

TEST(Critical, TheSecondHalfIsSelectedByScoresTimesNorms) {
  std::vector<float> scores = {8, 7, 6, 5, 4, 3, 2, 1};
  const std::vector<float> weights = {0, 0, 1, 1, 1, 3, 0, 9};
  // The two best by score alone, then the best of the products 6, 5, 4, 9, 0 and 9; of equal ones the newer.
  EXPECT_EQ(keep_critical(scores, weights, 1, 4, {}), (std::vector<char>{1, 1, 0, 0, 0, 1, 0, 1}));
  scores = {8, 7, 6, 5, 4, 3, 2, 1};
  EXPECT_EQ(keep_critical(scores, weights, 1, 4, {.sink = 1, .window = 2}),
            (std::vector<char>{1, 0, 0, 0, 0, 1, 1, 1}))
      << "sink and window count towards the budget";
}

TEST(Critical, ABudgetOfAllTokensKeepsAll) {
  std::vector<float> scores(100, 0.5f);
  const std::vector<float> weights(100);
  EXPECT_EQ(keep_critical(scores, weights, 1, 100, {}), std::vector<char>(100, 1));
}

/// Returns the tokens of CriticalKV by its definition: half of `budget` by score, the rest by score times norm.
std::vector<int64_t> critical(Evicting& e, std::vector<double> scores, int head, int64_t budget) {
  std::vector<char> first(scores.size());
  for (const int64_t t : largest(scores, budget / 2)) first[t] = 1;
  for (int64_t t = 0; t < std::ssize(scores); ++t)
    scores[t] = first[t] ? 1e9 : (scores[t] + 1e-4) * std::fabs(e.value(t, head)[0]);
  return largest(scores, budget);
}

TEST(Critical, SnapKvFollowsTheDefinition) {
  for (const char* positions : {"original", "compacted"}) {
    Evicting e(
        {},
        std::string("snapkv:budget=150,slack=0,pool=1,queries=10,window=10,critical=true,positions=") + positions,
        first_dimension);
    for (const int64_t rows : {300, 70, 30}) e.read(rows);
    e.evict(false);
    for (int h = 0; h < 2; ++h) {
      std::vector<double> scores = test::attention(e, 390, 400, 2 * h, 2);
      for (int64_t t = 390; t < 400; ++t) scores[t] = 1e6;
      EXPECT_EQ(e.kept_tokens(h), critical(e, scores, h, 150));
    }
  }
}

/// The mean attention that is the score of TOVA or H2O.
std::vector<double> mean_attention(Evicting& e, const std::string& name, int head) {
  if (name == "tova") return test::attention(e, 399, 400, 0, 6);
  std::vector<double> scores(400);
  for (int64_t row = 0; row < 400; ++row) {
    const std::vector<double> row_attention = test::attention(e, row, row + 1, 3 * head, 3);
    for (int64_t t = 0; t <= row; ++t) scores[t] += row_attention[t] / static_cast<double>(400 - t);
  }
  return scores;
}

// The queries are so sharp that many tokens have less attention than the 1e-4 that is added. Sums instead of means
// would therefore keep other tokens.
TEST(Critical, ScoresAreMeansOverRowsAndHeads) {
  for (const std::string name : {"tova", "h2o"}) {
    for (const int head : {0, 1}) {
      std::vector<double> scores;
      for (const int64_t budget : {60, 120, 180, 240, 300, 360}) {
        const std::string spec = name + ":slack=0,sink=0,window=0,critical=true,budget=" + std::to_string(budget);
        Evicting e({.heads = 6, .kv_heads = 2}, spec + (name == "h2o" ? ",rows=0" : ""), first_dimension);
        for (float& x : e.queries) x *= 8;
        e.read(400);
        if (scores.empty()) scores = mean_attention(e, name, head);
        e.evict(false);
        EXPECT_EQ(e.kept_tokens(head), critical(e, scores, head, budget)) << spec;
      }
    }
  }
}

TEST(Critical, NormsBelongToTheirTokensAfterChunksRewindAndCompaction) {
  Evicting original({}, "tova:budget=120,slack=0,window=40,critical=true", first_dimension);
  Evicting compacted({}, "tova:budget=120,slack=0,window=40,critical=true,positions=compacted", first_dimension);
  for (Evicting* e : {&original, &compacted}) {
    for (const int64_t rows : {700, 30, 100}) {
      e->read(rows);
      e->evict(false);
    }
    e->remove_newest(60);
    e->read(200);
    ValueNorms norms;
    norms.add(e->sequence.kv(0), 0, first_dimension, *e->pool);
    for (int h = 0; h < 2; ++h)
      for (const int64_t t : e->kept_tokens(h)) ASSERT_FLOAT_EQ(norms.of(h, t), std::fabs(e->value(t, h)[0]));
    e->evict(true);
    EXPECT_EQ(e->kept_tokens(0).size(), 120u);
  }
}

TEST(Critical, AModelWithoutOutputProjectionIsAnError) {
  try {
    Evicting e({}, "snapkv:critical=true");
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Error::Kind::kUsage);
  }
}

}  // namespace
}  // namespace fathom
