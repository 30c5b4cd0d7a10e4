#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/spec.h"
#include "decode/drafts/forced.h"
#include "drafting.h"
#include "seed.h"

namespace fathom::test {
namespace {

Values values_of(const std::string& spec) { return check_values(parse_spec(spec), forced_parameters()); }

/// Returns a draft for a text of which `emitted` tokens of the continuation exist.
Draft propose(DraftSource& source, const std::vector<int32_t>& continuation, int64_t emitted, int nodes = 63) {
  std::vector<int32_t> tokens{5, 6, 7};
  tokens.insert(tokens.end(), continuation.begin(), continuation.begin() + emitted);
  return source.propose({.tokens = tokens, .prompt = 3, .position = std::ssize(tokens)}, nodes);
}

/// Returns how many tokens of a draft equal those of the continuation from `emitted` on.
int right_tokens(const Draft& draft, const std::vector<int32_t>& continuation, int64_t emitted) {
  int right = 0;
  while (right < draft.size() && draft.tokens[right] == continuation[emitted + right]) ++right;
  return right;
}

TEST(DraftForced, TokensAreRightWithTheGivenProbability) {
  std::mt19937 random(seed(1));
  const std::vector<int32_t> continuation = random_tokens(random, 20000);
  for (const double accept : {0.0, 0.3, 0.6, 0.9, 1.0}) {
    const auto source =
        forced_source(values_of("forced:length=3,accept=" + std::to_string(accept)), continuation, 512);
    int64_t tested = 0, right = 0;
    for (int64_t emitted = 1; emitted + 4 < std::ssize(continuation);) {
      const Draft draft = propose(*source, continuation, emitted);
      ASSERT_EQ(draft.size(), 3);
      EXPECT_TRUE(draft.tree.is_chain());
      const int accepted = right_tokens(draft, continuation, emitted);
      tested += std::min(accepted + 1, 3);
      right += accepted;
      emitted += accepted + 1;
    }
    // the standard deviation is at most 0.5 / √10000
    EXPECT_NEAR(static_cast<double>(right) / static_cast<double>(tested), accept, 0.025);
  }
}

TEST(DraftForced, EstimatesAreTheProbabilityAndAboveZero) {
  const std::vector<int32_t> continuation(10, 1);
  const Draft some = propose(*forced_source(values_of("forced:accept=0.3"), continuation, 2), continuation, 1);
  ASSERT_EQ(some.estimates.size(), 4u);
  for (const float estimate : some.estimates) EXPECT_FLOAT_EQ(estimate, 0.3f);
  const Draft none = propose(*forced_source(values_of("forced:accept=0"), continuation, 2), continuation, 1);
  ASSERT_EQ(none.estimates.size(), 4u);
  for (const float estimate : none.estimates) EXPECT_GT(estimate, 0);
}

TEST(DraftForced, DraftsEndWithTheTextAndTheLimitOfNodes) {
  const std::vector<int32_t> continuation{1, 2, 3, 4, 5, 6};
  const auto source = forced_source(values_of("forced:accept=1,length=4"), continuation, 512);
  EXPECT_EQ(propose(*source, continuation, 1).tokens, (std::vector<int32_t>{2, 3, 4, 5}));
  EXPECT_EQ(propose(*source, continuation, 1, 2).tokens, (std::vector<int32_t>{2, 3}));
  EXPECT_EQ(propose(*source, continuation, 4).tokens, (std::vector<int32_t>{5, 6}));
  EXPECT_EQ(propose(*source, continuation, 6).size(), 0);
}

TEST(DraftForced, DraftsAreTheSameInEveryRun) {
  std::mt19937 random(seed(2));
  const std::vector<int32_t> continuation = random_tokens(random, 100);
  for (int64_t emitted = 1; emitted < 90; ++emitted) {
    const auto tokens = [&] {
      return propose(*forced_source(values_of("forced:accept=0.5"), continuation, 512), continuation, emitted)
          .tokens;
    };
    EXPECT_EQ(tokens(), tokens());
  }
}

TEST(DraftForced, DecodingGivesThePlainTokensAndTheKnownNumberOfPasses) {
  std::mt19937 random(seed(3));
  const std::vector<int32_t> prompt = random_tokens(random, 20);
  Session start(Model::open(floats_path()), draft_runtime());
  start.append(prompt);
  Sampler sampler;
  const std::vector<int32_t> plain = decode_plainly(start, sampler, prompt, 60);
  for (const char* spec : {"forced:accept=1,length=3", "forced:accept=0,length=3", "forced:accept=0.5,length=5"}) {
    Session session = start.fork();
    const auto source = forced_source(values_of(spec), plain, 512);
    const DraftRun run = decode_with(session, *source, sampler, prompt, 41);
    for (size_t i = 0; i < 41; ++i) EXPECT_EQ(run.tokens[i], plain[i]) << spec << ", token " << i;
    EXPECT_EQ(run.forwards, std::ssize(run.tokens) - 1 - run.accepted) << "each pass emits one token more";
    if (std::string(spec).starts_with("forced:accept=1")) {
      EXPECT_EQ(run.forwards, 10);
    } else if (std::string(spec).starts_with("forced:accept=0,")) {
      EXPECT_EQ(run.accepted, 0);
    }
  }
}

TEST(DraftForced, WrongParametersAreErrors) {
  for (const char* spec : {"forced:accept=1.5", "forced:accept=-0.1", "forced:length=0", "forced:length=64",
                           "forced:accept=x", "forced:rate=1"})
    EXPECT_THROW(values_of(spec), Error) << spec;
  EXPECT_THROW(forced_source(values_of("forced"), {}, 1), Error);
}

}  // namespace
}  // namespace fathom::test
