// Sessions with eviction.
#include <gtest/gtest.h>

#include <bit>

#include "models/reference_logits.h"
#include "seedling.h"
#include "session/session.h"

namespace fathom {
namespace {

using test::logits_of;
using test::runtime;
using test::seedling;
using test::steps;
using test::tokens;

/// Returns the number of visible tokens of one head.
int64_t visible(const Session& session, int layer, int head) {
  int64_t count = 0;
  for (const PageEntry& entry : session.sequence().kv(layer).table(head)) count += std::popcount(entry.mask);
  return count;
}
/// Returns the number of visible tokens of all heads.
int64_t visible(const Session& session) {
  int64_t count = 0;
  for (int layer = 0; layer < session.sequence().layers(); ++layer)
    for (int head = 0; head < session.sequence().kv(0).heads(); ++head) count += visible(session, layer, head);
  return count;
}

const char* const kMethods[] = {"streaming", "knorm",  "keydiff",  "tova",     "snapkv",
                                "h2o",       "sirllm", "expected", "pyramidkv"};

TEST(Evict, BudgetsThatCoverTheLengthEqualNoEviction) {
  const std::vector<int32_t> prompt = tokens(500), tail = tokens(40, 2), other = tokens(300, 3);
  const auto run = [&](const std::string& evict) {
    Session session(seedling(), runtime(), {.chunk = 128, .evict = evict});
    session.append(prompt);
    Session fork = session.fork();
    fork.append(other);
    fork.rewind(400);
    fork.append(other);
    steps(session, tail);
    return std::pair{logits_of(session), logits_of(fork)};
  };
  const auto none = run("none");
  for (const std::string method : kMethods) {
    EXPECT_EQ(run(method + ":budget=100k"), none) << method;
    EXPECT_EQ(run(method + ":budget=100k,positions=compacted"), none) << method;
    const bool accepts_weights = method != "streaming" && method != "knorm" && method != "keydiff";
    if (accepts_weights) {
      EXPECT_EQ(run(method + ":budget=100k,critical=true"), none) << method;
    }
    if (method == "pyramidkv") continue;  // later layers keep fewer tokens
    EXPECT_EQ(run(method + ":share=1"), none) << method;
  }
}

TEST(Evict, KeepsAsManyTokensAsTheBudget) {
  for (const std::string method : kMethods) {
    SCOPED_TRACE(method);
    const std::string ada = method == "snapkv" ? ",heads=ada" : "";
    Session session(seedling(), runtime(), {.chunk = 128, .evict = method + ":budget=100,slack=16" + ada});
    const int64_t tables = static_cast<int64_t>(session.sequence().layers()) * session.sequence().kv(0).heads();
    session.append(tokens(700));
    EXPECT_NEAR(visible(session), 100 * tables, tables);
    steps(session, tokens(40, 2));
    EXPECT_LE(visible(session), 116 * tables + tables);
    EXPECT_GE(visible(session), 100 * tables - tables);

    Session shared(seedling(), runtime(), {.chunk = 128, .evict = method + ":share=0.25"});
    shared.append(tokens(800));
    EXPECT_NEAR(visible(shared), 200 * tables, tables);
    steps(shared, tokens(10, 2));
    EXPECT_NEAR(visible(shared), 210 * tables, tables) << "generated tokens are not evicted";
    Session fork = shared.fork();
    fork.append(tokens(100, 3));
    EXPECT_NEAR(visible(fork), 228 * tables, tables) << "a quarter of 910";
    fork.rewind(400);
    EXPECT_LT(visible(fork), 228 * tables) << "a rewind does not restore evicted tokens";
    fork.append(tokens(300, 4));
    EXPECT_EQ(fork.length(), 810);
    EXPECT_NEAR(visible(shared), 210 * tables, tables) << "unchanged by its fork";
  }
}

TEST(Evict, PyramidKvKeepsMostTokensInTheFirstLayer) {
  Session session(seedling(), runtime(), {.evict = "pyramidkv:budget=200,beta=4,queries=8,window=8"});
  session.append(tokens(900));
  const int layers = session.sequence().layers();
  int64_t before = visible(session, 0, 0);
  EXPECT_EQ(before, 8 + 336);
  for (int layer = 1; layer < layers; ++layer) {
    EXPECT_LT(visible(session, layer, 0), before);
    before = visible(session, layer, 0);
  }
  EXPECT_EQ(before, 8 + 48);
}

TEST(Evict, MemoryIsBoundedForLongTexts) {
  Session session(seedling(), runtime(), {.chunk = 64, .evict = "streaming:budget=128,sink=0"});
  session.append(tokens(256));
  const size_t before = session.sequence().kv(0).store().bytes_in_use();
  session.append(tokens(2048));
  EXPECT_LE(session.sequence().kv(0).store().bytes_in_use(), before + before / 2);
}

TEST(Evict, SmallBudgetsChangeLogitsModerately) {
  const std::vector<int32_t> prompt = tokens(600);
  Session none(seedling(), runtime(), {.chunk = 128});
  none.append(prompt);
  steps(none, tokens(5, 2));
  for (const std::string method : kMethods) {
    Session session(seedling(), runtime(), {.chunk = 128, .evict = method + ":budget=128"});
    session.append(prompt);
    steps(session, tokens(5, 2));
    EXPECT_NE(logits_of(session), logits_of(none)) << method;
    EXPECT_GT(test::cosine(logits_of(session), logits_of(none)), 0.5) << method;
  }
}

}  // namespace
}  // namespace fathom
