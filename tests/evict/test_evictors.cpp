// The tokens that each method keeps, compared with its definition computed in double precision.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>

#include "evicting.h"

namespace fathom {
namespace {

using test::attention;
using test::Evicting;
using test::largest;
using test::Reading;

TEST(Evictors, StreamingKeepsTheFirstAndNewestTokens) {
  Evicting e({}, "streaming:budget=20,slack=0");
  e.read(300);
  e.evict(false);
  std::vector<int64_t> expected = {0, 1, 2, 3};
  for (int64_t t = 284; t < 300; ++t) expected.push_back(t);
  EXPECT_EQ(e.kept_tokens(0), expected);
  EXPECT_EQ(e.kept_tokens(1), expected);
}

TEST(Evictors, KNormKeepsTheSmallestKeys) {
  Evicting e({}, "knorm:share=0.25,sink=0,window=0");
  e.read(400);
  e.evict(true);
  for (int h = 0; h < 2; ++h) {
    std::vector<double> scores;
    for (int64_t t = 0; t < 400; ++t) {
      double squares = 0;
      for (int d = 0; d < 16; ++d) squares += std::pow(e.key(t, h)[d], 2);
      scores.push_back(-squares);
    }
    EXPECT_EQ(e.kept_tokens(h), largest(scores, 100));
  }
}

TEST(Evictors, KeyDiffKeepsTheKeysLeastSimilarToTheMean) {
  Evicting e({}, "keydiff:share=0.25,sink=0,window=0");
  e.read(400);
  e.evict(true);
  for (int h = 0; h < 2; ++h) {
    std::vector<std::vector<double>> keys;
    std::vector<double> mean(16), scores;
    for (int64_t t = 0; t < 400; ++t) {
      keys.push_back(e.rotated(e.key(t, h), t));
      const double length = std::sqrt(std::inner_product(keys[t].begin(), keys[t].end(), keys[t].begin(), 0.0));
      for (double& x : keys[t]) x /= length;
      for (int d = 0; d < 16; ++d) mean[d] += keys[t][d];
    }
    for (const auto& key : keys) scores.push_back(-std::inner_product(key.begin(), key.end(), mean.begin(), 0.0));
    EXPECT_EQ(e.kept_tokens(h), largest(scores, 100));
  }
}

TEST(Evictors, TovaKeepsTheTokensTheLastTokenAttendsToInAllHeads) {
  Evicting e({}, "tova:budget=90,slack=0");
  e.read(399);
  e.read(1);
  e.evict(false);
  const std::vector<int64_t> expected = largest(attention(e, 399, 400, 0, 4), 90);
  EXPECT_EQ(e.kept_tokens(0), expected);
  EXPECT_EQ(e.kept_tokens(1), expected);
}

TEST(Evictors, SnapKvKeepsTheTokensTheEndAttendsToAndTheirNeighbours) {
  for (const char* spec : {"snapkv:budget=150,slack=0", "snapkv:budget=150,slack=0,pool=1,queries=10,window=10"}) {
    Evicting e({}, spec);
    e.read(300);
    e.read(70);
    e.read(30);
    e.evict(false);
    const bool pooled = std::string(spec).find("pool") == std::string::npos;
    const int64_t window = pooled ? 64 : 10;
    for (int h = 0; h < 2; ++h) {
      const std::vector<double> mean = attention(e, 400 - window, 400, 2 * h, 2);
      std::vector<double> scores(400 - window);
      for (int64_t t = 0; t < 400 - window; ++t) {
        scores[t] = mean[t];
        for (int64_t u = t - 2; pooled && u <= t + 2 && u < 400 - window; ++u)
          scores[t] += u == t || u < 0 ? 0 : mean[u];
      }
      std::vector<int64_t> expected = largest(scores, 150 - window);
      for (int64_t t = 400 - window; t < 400; ++t) expected.push_back(t);
      EXPECT_EQ(e.kept_tokens(h), expected) << spec;
    }
  }
}

TEST(Evictors, H2oKeepsTheTokensWithMostAttention) {
  Evicting e({}, "h2o:budget=100,slack=0,rows=0,window=0");
  for (const int64_t rows : {250, 1, 99, 50}) e.read(rows);
  e.evict(false);
  for (int h = 0; h < 2; ++h) {
    std::vector<double> scores = attention(e, 0, 400, 2 * h, 2);
    for (int64_t t = 0; t < 400; ++t) scores[t] /= static_cast<double>(400 - t);
    EXPECT_EQ(e.kept_tokens(h), largest(scores, 100));
  }
}

/// Returns ln E exp(q·k/√d) for queries with the distribution of those of tokens 4 and later, rotated by the mean
/// rotation over the next 512 positions.
std::vector<double> expected_logits(Reading& e, int head, int64_t tokens) {
  const int dim = e.shape.dim;
  std::vector<double> mean(dim), covariance(dim * dim), logits;
  for (int64_t t = 4; t < tokens; ++t)
    for (int i = 0; i < dim; ++i) mean[i] += e.query(t, head)[i] / static_cast<double>(tokens - 4);
  for (int64_t t = 4; t < tokens; ++t) {
    for (int i = 0; i < dim; ++i)
      for (int j = 0; j < dim; ++j)
        covariance[i * dim + j] +=
            (e.query(t, head)[i] - mean[i]) * (e.query(t, head)[j] - mean[j]) / static_cast<double>(tokens - 4);
  }
  std::vector<double> rotation(dim * dim);  // the mean rotation
  for (int j = 0; j < dim; ++j) {
    std::vector<float> unit(dim);
    unit[j] = 1;
    for (int64_t n = 0; n < 512; ++n) {
      const std::vector<double> rotated = e.rotated(unit.data(), tokens + n);
      for (int i = 0; i < dim; ++i) rotation[i * dim + j] += rotated[i] / 512;
    }
  }
  for (int64_t t = 0; t < tokens; ++t) {
    const std::vector<double> key = e.rotated(e.key(t, head / e.group()), t);
    std::vector<double> back(dim);
    for (int i = 0; i < dim; ++i)
      for (int j = 0; j < dim; ++j) back[j] += rotation[i * dim + j] * key[i];
    double logit = 0;
    for (int i = 0; i < dim; ++i) {
      logit += back[i] * mean[i] * e.scale();
      for (int j = 0; j < dim; ++j)
        logit += back[i] * covariance[i * dim + j] * back[j] * e.scale() * e.scale() / 2;
    }
    logits.push_back(logit);
  }
  return logits;
}

TEST(Evictors, ExpectedKeepsTheTokensFutureQueriesShouldAttendTo) {
  Evicting e({}, "expected:share=0.25,window=0");
  for (const int64_t rows : {2, 300, 1, 97}) {
    e.read(rows);
    if (rows != 97) e.evict(false);
  }
  EXPECT_EQ(e.kept_tokens(0).size(), 400u) << "with a share nothing is evicted before the end of the text";
  e.evict(true);
  for (int h = 0; h < 2; ++h) {
    std::vector<double> scores(400);
    for (int q = 2 * h; q < 2 * h + 2; ++q) {
      std::vector<double> own = expected_logits(e, q, 400);
      std::fill_n(own.begin(), 4, -1e9);  // always kept
      Reading::softmax(own);
      for (int64_t t = 0; t < 400; ++t) scores[t] += own[t];
    }
    for (int64_t t = 0; t < 400; ++t)
      scores[t] = t < 4 ? 1e9 : scores[t] * std::hypot(e.value(t, h)[0], e.value(t, h)[1]);
    EXPECT_EQ(e.kept_tokens(h), largest(scores, 100));
  }
}

TEST(Evictors, SirLlmKeepsSurprisingTokensAndEarlierTurnsDecay) {
  for (const double decay : {1.0, 0.5}) {
    Evicting e({}, "sirllm:budget=40,slack=0,decay=" + std::to_string(decay));
    EXPECT_TRUE(e.evictor->needs_surprisal());
    std::vector<float> nats(300);
    for (int i = 0; i < 300; ++i) nats[i] = static_cast<float>(i * 7 % 100) / 10 + (i < 100 ? 3 : 0);
    nats[0] = NAN;
    std::vector<double> scores(300);
    int64_t first = 0;
    for (const int64_t rows : {100, 1, 199}) {
      e.read(rows);
      SequenceState* state = e.sequence.state(Sequence::StateOf::kEvictor);
      e.evictor->surprisal({first, std::span(nats).subspan(first, rows)}, state);
      for (int64_t t = 0; t < 300; ++t) {
        if (t < first && rows > 1) scores[t] *= decay;
        if (t >= first && t < first + rows) scores[t] = nats[t];
      }
      e.evict(true);
      first += rows;
      if (rows == 100) {
        for (int64_t t = 0; t < 100; ++t) scores[t] = std::ranges::count(e.kept_tokens(0), t) ? scores[t] : -1;
      }
      if (rows == 1) {
        for (int64_t t = 0; t < 101; ++t) scores[t] = std::ranges::count(e.kept_tokens(0), t) ? scores[t] : -1;
      }
      EXPECT_EQ(e.kept_tokens(0).size(), 40u);
      EXPECT_EQ(e.kept_tokens(0), e.kept_tokens(1));
    }
    for (int64_t t = 0; t < 4; ++t) scores[t] = 1e9;
    // Several tokens have the same score, so scores are compared instead of tokens.
    std::vector<double> kept, best = scores;
    for (const int64_t t : e.kept_tokens(0)) kept.push_back(scores[t]);
    std::ranges::sort(kept, std::greater());
    std::ranges::sort(best, std::greater());
    best.resize(40);
    EXPECT_EQ(kept, best);
    const auto old = std::ranges::count_if(e.kept_tokens(0), [](int64_t t) { return t >= 4 && t < 100; });
    EXPECT_TRUE(decay < 1 ? old == 0 : old > 10) << old;
  }
}

TEST(Evictors, TheBudgetPlusSlackIsNeverExceeded) {
  for (const char* method : {"streaming", "knorm", "keydiff", "tova", "snapkv", "h2o", "pyramidkv", "expected"}) {
    Evicting e({}, std::string(method) + ":budget=100,slack=20");
    e.read(120);
    e.evict(false);
    EXPECT_EQ(e.kept_tokens(0).size(), 120u) << method;
    for (int step = 0; step < 60; ++step) {
      e.read(step == 30 ? 300 : 1);
      e.evict(step % 2);
      const size_t left = e.kept_tokens(0).size() + e.kept_tokens(1).size();
      EXPECT_LE(left, 2u * 120) << method;
      EXPECT_GE(left, 2u * 100) << method;
      EXPECT_TRUE(method == std::string("tova") || e.kept_tokens(0).back() == e.sequence.tokens() - 1) << method;
    }
  }
}

TEST(Evictors, BlocksAndSharedHeadBudgetsApplyToAnyScorer) {
  Evicting chunked({}, "knorm:budget=100,slack=0,block=20,sink=0,window=0");
  chunked.read(400);
  chunked.evict(false);
  const std::vector<int64_t> left = chunked.kept_tokens(0);
  EXPECT_EQ(left.size(), 100u);
  for (const int64_t t : left) EXPECT_TRUE(std::ranges::binary_search(left, t / 20 * 20)) << "whole blocks";

  Evicting ada({}, "knorm:budget=100,slack=0,heads=ada,sink=0,window=0");
  for (int64_t t = 0; t < 400; ++t)
    for (int d = 0; d < 16; ++d) ada.key(t, 1)[d] *= 3;  // the second head's keys are large
  ada.read(400);
  ada.evict(false);
  EXPECT_EQ(ada.kept_tokens(0).size(), 180u);
  EXPECT_EQ(ada.kept_tokens(1).size(), 20u);
}

TEST(Evictors, PagesWithoutKeptTokensAreReleased) {
  Evicting e({}, "streaming:budget=100,slack=0,sink=0");
  e.read(1000);
  e.evict(false);
  const PageStore& store = e.sequence.kv(0).store();
  EXPECT_EQ(store.bytes_in_use(), 2 * 2 * store.shape().bytes());  // tokens 900 to 999: two pages of each head
}

TEST(Evictors, RewindsAndForksDoNotRestoreEvictedTokens) {
  Evicting e({}, "h2o:budget=100,slack=0");
  e.read(400);
  Sequence fork = e.sequence.fork();
  e.evict(false);
  const std::vector<int64_t> left = e.kept_tokens(0);
  int64_t visible = 0;
  for (const PageEntry& entry : fork.kv(0).table(0)) visible += std::popcount(entry.mask);
  EXPECT_EQ(visible, 400) << "the fork has its own page table";
  e.remove_newest(50);
  const auto below = std::ranges::count_if(left, [](int64_t t) { return t < 350; });
  EXPECT_EQ(std::ssize(e.kept_tokens(0)), below);
  e.read(200);
  e.evict(true);
  EXPECT_EQ(e.kept_tokens(0).size() + e.kept_tokens(1).size(), 200u);
}

TEST(EvictMethods, InvalidParametersAreUsageErrors) {
  for (const char* spec :
       {"knorm:budget=0", "knorm:budget=100,share=0.5", "knorm:share=0", "knorm:share=1.5", "knorm:budget=36",
        "snapkv:budget=64", "snapkv:pool=4", "tova:block=0", "h2o:heads=odd", "pyramidkv:beta=0", "sirllm:decay=2",
        "nkorm", "knorm:positions=clamped", "knorm:critical=true", "streaming:critical=true",
        "keydiff:critical=true", "tova:critical=1"}) {
    try {
      evict_methods().make(spec);
      ADD_FAILURE() << spec;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), Error::Kind::kUsage) << spec;
    }
  }
}

TEST(EvictMethods, OnlyNoneIsExactAndAllHaveDefaults) {
  for (const MethodInfo& method : evict_methods().infos()) {
    EXPECT_EQ(method.kind, "evict");
    EXPECT_EQ(method.exact, method.name == "none") << method.name;
    EXPECT_NO_THROW(evict_methods().make(method.name)) << method.name;
  }
}

}  // namespace
}  // namespace fathom
