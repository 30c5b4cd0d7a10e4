// PEARL: drafter and target at work at the same time. The modes are tested with a virtual clock, the tokens with
// real models.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdio>

#include "base/error.h"
#include "decode/drafts/draft_model.h"
#include "decode/drafts/grow.h"
#include "decode/drafts/pearl.h"
#include "drafting.h"
#include "seed.h"

namespace fathom {
namespace {

using test::Markov;

/// Two Markov chains as models, with a clock: a drafted token costs 1, a pass of the target `cost`.
class ToyModels final : public PearlModels {
 public:
  ToyModels(Markov p, Markov q, uint64_t seed, double cost)
      : p_(std::move(p)), q_(std::move(q)), seed_(seed), cost_(cost) {}

  Draft draft(std::span<const int32_t> text, int n) override {
    GrowthTask task{.nodes = n, .seed = seed_, .position = std::ssize(text)};
    task.expand = [&](const Draft& draft, std::span<const int> nodes) {
      std::vector<TokenDistribution> all(1);
      const std::vector<double>& row = q_[nodes[0] < 0 ? text.back() : draft.tokens[nodes[0]]];
      for (int32_t id = 0; id < std::ssize(row); ++id)
        if (row[id] > 0) all[0].push_back({id, static_cast<float>(row[id])});
      return all;
    };
    const Draft draft = grow_chain(task, n);
    drafting = draft.size();
    return draft;
  }
  std::vector<float> read(std::span<const int32_t> block) override {
    std::vector<float> logits;
    for (const int32_t token : block) {
      const std::vector<float> row = test::log_of(p_[token]);
      logits.insert(logits.end(), row.begin(), row.end());
    }
    block_ = std::ssize(block);
    return logits;
  }
  void keep(int n) override {
    EXPECT_LE(n, block_);
    kept += n;
    time += std::max(cost_, static_cast<double>(drafting.exchange(0)));
  }
  double cost_ratio() const override { return cost_; }

  double time = 0;
  int64_t kept = 0;

 private:
  Markov p_, q_;
  uint64_t seed_;
  double cost_;
  int64_t block_ = 0;
  std::atomic<int> drafting = 0;
};

const std::vector<std::string> kSampling{"temperature:t=1"};

/// Runs slots until the text has at least n tokens after the first one, which is 0.
std::vector<int32_t> run_slots(ToyModels& models, uint64_t seed, PearlOptions options, int64_t n,
                               PearlCounts& counts) {
  Sampler sampler(kSampling, seed);
  PearlLoop loop(models, sampler, options);
  std::vector<int32_t> text{0};
  while (std::ssize(text) <= n) {
    const int64_t before = std::ssize(text);
    loop.slot(text, before, 64, [](int32_t) { return true; });
    EXPECT_GT(std::ssize(text), before) << "each slot emits a token";
    EXPECT_EQ(models.kept, std::ssize(text) - 1) << "the target has read all tokens but the newest";
  }
  counts = loop.counts();
  return text;
}

TEST(Pearl, TokensPerSlotFollowFromAcceptanceAndDraftLength) {
  for (const double alpha : {0.5, 0.7, 0.9}) {
    for (const int length : {1, 3, 6}) {
      // the drafter always proposes token 0, which is accepted with probability alpha
      const Markov p(2, {alpha, 1 - alpha}), q(2, {1, 0});
      ToyModels models(p, q, test::seed(1), length);
      PearlCounts counts;
      const std::vector<int32_t> text = run_slots(models, test::seed(1), {.length = length}, 3000, counts);
      const double rate = static_cast<double>(text.size() - 1) / static_cast<double>(counts.slots);
      const double all = std::pow(alpha, length);
      const double expected = (1 - all) / ((1 - alpha) * (1 + alpha - all));
      EXPECT_NEAR(rate, expected, 0.07 * expected) << alpha << ", " << length;
      // plain speculative decoding drafts and reads one after the other
      const double plain = (1 - all * alpha) / (1 - alpha) / (2 * length);
      const double parallel = static_cast<double>(text.size() - 1) / models.time;
      std::printf("acceptance %.1f, length %d: %.2f tokens per slot (%.2f expected), %.2f times plain drafts\n",
                  alpha, length, rate, expected, parallel / plain);
      if (alpha >= 0.7) {
        EXPECT_GT(parallel, plain) << alpha << ", " << length;
      }
    }
  }
}

TEST(Pearl, TokensOfASeedDoNotDependOnTheDraftLength) {
  std::mt19937 random(test::seed(2));
  const Markov p = test::random_markov(random), q = test::random_markov(random, 0.7, &p);
  for (uint64_t seed = 0; seed < 5; ++seed) {
    std::vector<int32_t> first;
    for (const int length : {1, 2, 5, 16, 0}) {
      ToyModels models(p, q, seed, 3);
      PearlCounts counts;
      std::vector<int32_t> text = run_slots(models, seed, {.length = length}, 120, counts);
      EXPECT_GT(counts.accepted, 0);
      text.resize(121);
      if (first.empty()) first = text;
      EXPECT_EQ(text, first) << "length " << length;
    }
  }
}

TEST(Pearl, SampledTokensHaveTheExactDistribution) {
  std::mt19937 random(test::seed(4));
  const Markov p = test::random_markov(random), q = test::random_markov(random, 1, &p);
  std::map<std::vector<int32_t>, int64_t> counts;
  std::map<std::vector<int32_t>, double> expected;
  for (int32_t a = 0; a < 5; ++a)
    for (int32_t b = 0; b < 5; ++b)
      for (int32_t c = 0; c < 5; ++c) expected[{a, b, c}] = p[0][a] * p[a][b] * p[b][c];
  constexpr int64_t kTrials = 4000;
  for (int64_t trial = 0; trial < kTrials; ++trial) {
    ToyModels models(p, q, trial, 2);
    PearlCounts slots;
    const std::vector<int32_t> text = run_slots(models, trial, {.length = 2}, 3, slots);
    ++counts[{text[1], text[2], text[3]}];
  }
  EXPECT_LT(test::chi_square_ratio(counts, expected, kTrials), 1);
}

TEST(Pearl, AdaptsTheDraftLengthToTheCosts) {
  const Markov one(2, {1, 0});
  for (const auto& [cost, drafted] : {std::pair{3.0, 3}, {9.4, 9}, {100.0, 12}, {0.2, 1}}) {
    ToyModels models(one, one, 1, cost);
    PearlCounts counts;
    run_slots(models, 1, {.max_length = 12}, 200, counts);
    EXPECT_EQ(counts.drafted, counts.slots * drafted) << cost;
    EXPECT_EQ(counts.pre_slots, 1) << "everything is accepted";
  }
}

GenerateOptions at_most(int64_t tokens, bool ignore_eos = false) {
  GenerateOptions options;
  options.max_tokens = tokens;
  options.ignore_eos = ignore_eos;
  return options;
}

/// A target, a drafter and a tokenizer with one token per id.
class PearlSession : public testing::Test {
 protected:
  PearlSession() {
    vocabulary_.kind = VocabularyKind::kByteLevelBpe;
    for (int i = 0; i < 512; ++i) vocabulary_.pieces.push_back("t" + std::to_string(i));
  }
  Session target(SessionOptions options = {}) {
    options.cache = "f32";
    Session session(test::floats(), test::draft_runtime(), options);
    session.append(prompt_);
    return session;
  }
  static std::shared_ptr<const Model> small() {
    static const auto model = Model::open(test::small_path());
    return model;
  }
  PearlSetup setup(std::shared_ptr<const Model> drafter) const {
    return {std::move(drafter), other_, {.cache = "f32"}};
  }

  Vocabulary vocabulary_;
  std::shared_ptr<Runtime> other_ = std::make_shared<Runtime>(1);
  std::mt19937 random_{test::seed(0)};
  std::vector<int32_t> prompt_ = test::random_tokens(random_, 30);
};

TEST_F(PearlSession, GreedyTokensEqualThoseOfPlainDecoding) {
  const Tokenizer tokenizer(vocabulary_);
  for (const auto& drafter : {small(), test::floats()}) {
    for (const int length : {1, 4, 9, 0}) {
      Session plain = target(), session = target();
      Sampler sampler;
      const Generated expected = generate(plain, tokenizer, sampler, prompt_, at_most(50));
      PearlCounts counts;
      const Generated found = generate_pearl(session, setup(drafter), tokenizer, sampler, prompt_, at_most(50),
                                             {.length = length}, nullptr, &counts);
      EXPECT_EQ(found.tokens, expected.tokens);
      EXPECT_EQ(found.text, expected.text);
      EXPECT_EQ(found.stop, StopReason::kLength);
      EXPECT_EQ(session.length(), plain.length());
      EXPECT_EQ(found.steps, expected.steps);
      EXPECT_FALSE(session.sequence().is_open());
      if (drafter != small()) {
        EXPECT_EQ(counts.pre_slots, 1) << "the target itself is never rejected";
      }
    }
  }
}

TEST_F(PearlSession, SampledTokensOfASeedDoNotDependOnTheDraftLength) {
  const Tokenizer tokenizer(vocabulary_);
  std::vector<int32_t> first;
  for (const int length : {1, 3, 7, 0}) {
    Session session = target();
    Sampler sampler(std::vector<std::string>{"temperature:t=0.8", "top-k:k=8"}, 9);
    const Generated found =
        generate_pearl(session, setup(small()), tokenizer, sampler, prompt_, at_most(40), {.length = length});
    EXPECT_EQ(found.tokens.size(), 40);
    if (first.empty()) first = found.tokens;
    EXPECT_EQ(found.tokens, first) << length;
  }
}

TEST_F(PearlSession, EndsLikePlainDecoding) {
  // a token that greedy decoding generates ends the text
  {
    const Tokenizer tokenizer(vocabulary_);
    Session session = target();
    Sampler sampler;
    vocabulary_.end_of_generation = {generate(session, tokenizer, sampler, prompt_, at_most(12)).tokens.back()};
  }
  const Tokenizer tokenizer(vocabulary_);
  const auto both = [&](const SessionOptions& session_options, const GenerateOptions& options,
                        int64_t drafter_context) {
    Session plain = target(session_options), session = target(session_options);
    Sampler sampler;
    const Generated expected = generate(plain, tokenizer, sampler, prompt_, options);
    PearlSetup with = setup(test::floats());
    with.options.context = drafter_context;
    const Generated found = generate_pearl(session, with, tokenizer, sampler, prompt_, options, {.length = 5});
    EXPECT_EQ(found.tokens, expected.tokens);
    EXPECT_EQ(found.stop, expected.stop);
    EXPECT_EQ(session.length(), plain.length());
    return expected;
  };
  EXPECT_EQ(both({}, at_most(100), 0).stop, StopReason::kEos);
  EXPECT_EQ(both({}, at_most(1), 0).tokens.size(), 1);
  EXPECT_EQ(both({}, at_most(0), 0).tokens.size(), 0);
  for (int64_t context = 30; context < 40; ++context) {  // the target's context ends
    const Generated expected = both({.context = context}, at_most(100, true), 0);
    EXPECT_EQ(std::ssize(expected.tokens), context - 30 + 1);
  }
  for (const int64_t context : {10, 30, 33, 41})  // the drafter's context ends
    EXPECT_EQ(both({}, at_most(30, true), context).tokens.size(), 30);
}

TEST_F(PearlSession, StopsWhenRequestedAndRejectsInvalidSetups) {
  const Tokenizer tokenizer(vocabulary_);
  StopToken stop;
  Session session = target({.stop = &stop});
  Sampler sampler;
  int64_t characters = 0;
  const Generated found = generate_pearl(session, setup(small()), tokenizer, sampler, prompt_, at_most(1000), {},
                                         [&](std::string_view text) {
                                           characters += std::ssize(text);
                                           if (characters > 60) stop.request_stop();
                                         });
  EXPECT_EQ(found.stop, StopReason::kInterrupted);
  EXPECT_EQ(session.length(), 30 + std::ssize(found.tokens) - 1);
  stop.reset();

  PearlSetup same = setup(small());
  same.runtime = test::draft_runtime();
  EXPECT_THROW(generate_pearl(session, same, tokenizer, sampler, prompt_), Error);
  const auto other = test::open_tiny({.layers = 1, .vocabulary = 300});
  EXPECT_THROW(generate_pearl(session, setup(other), tokenizer, sampler, prompt_), Error);
  EXPECT_THROW(generate_pearl(session, setup(small()), tokenizer, sampler, prompt_, {}, {.length = 64}), Error);
  EXPECT_THROW(generate_pearl(session, setup(small()), tokenizer, sampler, prompt_, {}, {.max_length = 0}), Error);
  // an error of the caller leaves no open draft
  Session failing = target();
  EXPECT_THROW(generate_pearl(failing, setup(small()), tokenizer, sampler, prompt_, at_most(20), {},
                              [](std::string_view) { fail("disk full"); }),
               Error);
  EXPECT_FALSE(failing.sequence().is_open());
}

}  // namespace
}  // namespace fathom
