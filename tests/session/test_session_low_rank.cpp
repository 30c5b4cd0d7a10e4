// Sessions whose selector attends to keys rebuilt from a low rank (shadowkv).
#include <gtest/gtest.h>

#include <numeric>

#include "attend/attention_mass.h"
#include "base/error.h"
#include "models/reference_logits.h"
#include "models/tiny_model.h"
#include "seedling.h"

namespace fathom {
namespace {

using test::floats;
using test::largest_difference;
using test::logits_of;
using test::runtime;
using test::seedling;
using test::steps;
using test::tokens;

TEST(SessionLowRank, AllChunksWithFullRankEqualDense) {
  const auto run = [&](const std::string& attend) {
    Session session(floats(), runtime(), {.attend = attend});
    session.append(tokens(450));
    steps(session, tokens(30, 2));
    Session fork = session.fork();
    steps(fork, tokens(20, 3));
    fork.rewind(20 + 30 + 50);  // ends inside the prompt
    steps(fork, tokens(40, 4));
    steps(session, tokens(10, 5));
    std::vector<float> both = logits_of(session);
    const std::vector<float> of_fork = logits_of(fork);
    both.insert(both.end(), of_fork.begin(), of_fork.end());
    return both;
  };
  const std::vector<float> dense = run("dense");
  for (const char* attend : {"shadowkv:budget=100k,outliers=0,rank=32", "shadowkv:budget=100k,outliers=10,rank=32",
                             "layers:full=1,then=(shadowkv:budget=100k,rank=32),else=(shadowkv:budget=100k)"})
    EXPECT_LE(largest_difference(run(attend), dense), 1e-3) << attend;
  EXPECT_GT(largest_difference(run("shadowkv:budget=100k,outliers=0,rank=16"), dense), 1e-2);
}

TEST(SessionLowRank, LogitsApproachDenseAsTheRankGrows) {
  const auto run = [&](const std::string& attend, const std::string& cache) {
    Session session(seedling(), runtime(), {.attend = attend, .cache = cache});
    session.append(tokens(600));
    steps(session, tokens(12, 2));
    return logits_of(session);
  };
  for (const char* cache : {"bf16", "q8"}) {
    const std::vector<float> dense = run("dense", cache);
    double before = -1;
    for (const char* rank : {"4", "24", "64"}) {
      const std::string attend = std::string("shadowkv:budget=100k,outliers=0,rank=") + rank;
      const double cosine = test::cosine(run(attend, cache), dense);
      EXPECT_GT(cosine, before) << attend << " " << cache;
      before = cosine;
    }
    EXPECT_GT(before, 0.999) << cache;
  }
}

TEST(SessionLowRank, BatchedSessionsUseTheirOwnKeys) {
  const std::string attend = "shadowkv:budget=64,outliers=4,rank=16";
  const auto start = [&](int64_t length, uint32_t seed) {
    auto session = std::make_unique<Session>(seedling(), runtime(), SessionOptions{.attend = attend});
    session->append(tokens(length, seed));
    return session;
  };
  const auto a = start(500, 1), b = start(700, 2);
  Session alone_a = a->fork(), alone_b = b->fork();
  Session* both[] = {a.get(), b.get()};
  for (int32_t i = 0; i < 6; ++i) {
    const int32_t ids[] = {20 + i, 90 + i};
    Session::step(both, ids);
    steps(alone_a, {ids[0]});
    steps(alone_b, {ids[1]});
  }
  EXPECT_GT(test::cosine(logits_of(*a), logits_of(alone_a)), 0.9999);
  EXPECT_GT(test::cosine(logits_of(*b), logits_of(alone_b)), 0.9999);
}

TEST(SessionLowRank, WatchersReceiveTheMassOfRebuiltKeys) {
  Session session(seedling(), runtime(), {.attend = "shadowkv:budget=100k,outliers=0,rank=4"});
  session.append(tokens(500));
  AttentionMass mass(std::vector<char>(session.sequence().layers(), 1), session.sequence().kv(0).heads(), 500);
  session.watch(&mass);
  steps(session, tokens(4, 2));
  for (int layer = 0; layer < session.sequence().layers(); ++layer) {
    const std::vector<double> shares = mass.mass(layer, 0, session.length());
    const double queries = static_cast<double>(mass.queries(layer));
    EXPECT_NEAR(std::accumulate(shares.begin(), shares.end(), 0.0), queries, 1e-3 * queries) << layer;
  }
}

TEST(SessionLowRank, RejectsARankAboveTheMaximum) {
  EXPECT_THROW(Session(seedling(), runtime(), {.attend = "shadowkv:rank=65"}), Error);
  EXPECT_THROW(Session(seedling(), runtime()).fork("layers:then=(shadowkv:rank=65)"), Error);
}

}  // namespace
}  // namespace fathom
