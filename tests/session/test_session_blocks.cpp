#include <gtest/gtest.h>

#include <cmath>

#include "models/tiny_model.h"
#include "seedling.h"
#include "session/session.h"

namespace fathom {
namespace {

using test::logits_of;
using test::runtime;
using test::seedling;
using test::tokens;

TEST(SessionBlocks, BudgetsThatCoverTheLengthEqualDense) {
  const std::vector<int32_t> prompt = tokens(500), tail = tokens(40, 2), other = tokens(300, 3);
  const auto run = [&](const std::string& attend) {
    Session session(seedling(), runtime(), {.attend = attend});
    session.append(prompt);
    Session fork = session.fork();
    fork.append(other);
    fork.rewind(400);
    fork.append(other);
    for (const int32_t token : tail) session.append({&token, 1});
    return std::pair{logits_of(session), logits_of(fork)};
  };
  const auto dense = run("dense");
  for (const char* attend :
       {"infllm:window=100k", "infllm:window=64,sink=4,topk=100k,positions=original",
        "em-llm:window=64,sink=4,max=32,budget=100k,positions=original,refine=modularity", "em-llm:window=100k",
        "actqkv:window=64,topk=100k,positions=original", "actqkv:window=100k",
        "layers:full=1,then=(infllm:window=64,topk=100k,positions=original),else=(em-llm:window=100k)"})
    EXPECT_EQ(run(attend), dense) << attend;
}

TEST(SessionBlocks, AForkWithAnotherMethodSelectsFromExistingPages) {
  for (const char* attend : {"infllm:window=64,sink=16,block=32,topk=2",
                             "em-llm:window=64,sink=16,max=32,budget=64,refine=conductance,contiguity=0.3",
                             "actqkv:window=64,sink=16,topk=2"}) {
    Session dense(seedling(), runtime());
    dense.append(tokens(600));
    Session fork = dense.fork(attend), twin = dense.fork(attend);
    for (int i = 0; i < 40; ++i) {
      const std::vector<int32_t> next = tokens(1, i);
      fork.append(next);
      twin.append(next);
      dense.append(next);
    }
    EXPECT_EQ(logits_of(fork), logits_of(twin)) << attend;
    EXPECT_NE(logits_of(fork), logits_of(dense)) << attend;
    for (const float logit : logits_of(fork)) ASSERT_TRUE(std::isfinite(logit)) << attend;
  }
}

TEST(SessionBlocks, RewindToAPageEndEqualsAnUninterruptedRead) {
  const SessionOptions options{.attend = "infllm:window=64,sink=16,block=32,topk=2"};
  const auto finish = [](Session& session) {
    session.append(tokens(100, 3));
    for (const int32_t token : tokens(70, 4)) session.append({&token, 1});
    return logits_of(session);
  };
  Session straight(seedling(), runtime(), options), rewound(seedling(), runtime(), options);
  straight.append(tokens(1024));
  rewound.append(tokens(1024));
  rewound.append(tokens(150, 2));
  Session fork = rewound.fork();
  rewound.rewind(150);
  fork.rewind(150);
  const std::vector<float> expected = finish(straight);
  EXPECT_EQ(finish(rewound), expected);
  EXPECT_EQ(finish(fork), expected);
  Session dense(seedling(), runtime());
  dense.append(tokens(1024));
  EXPECT_NE(finish(dense), expected);
}

TEST(SessionBlocks, ThreadsDoNotChangeResults) {
  for (const char* attend : {"infllm:window=64,sink=16,block=32,topk=2",
                             "em-llm:window=64,sink=16,max=32,budget=64,refine=modularity,contiguity=0.3",
                             "actqkv:window=64,sink=16,topk=2,warmup=1"}) {
    std::vector<std::vector<float>> results;
    for (const int threads : {1, 3}) {
      Session session(seedling(), std::make_shared<Runtime>(threads), {.attend = attend});
      session.append(tokens(1200));
      for (const int32_t token : tokens(5, 2)) session.append({&token, 1});
      results.push_back(logits_of(session));
    }
    EXPECT_EQ(results[0], results[1]) << attend;
  }
}

}  // namespace
}  // namespace fathom
