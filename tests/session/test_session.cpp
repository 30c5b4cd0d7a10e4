#include "session/session.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "models/reference_logits.h"
#include "models/tiny_model.h"
#include "seedling.h"

namespace fathom {
namespace {

using test::floats;
using test::logits_of;
using test::runtime;
using test::seedling;
using test::steps;
using test::tokens;

/// Returns the logits after reading `ids` in one call of append.
std::vector<float> read_straight(const std::vector<int32_t>& ids, const SessionOptions& options = {},
                                 const std::shared_ptr<const Model>& model = seedling()) {
  Session session(model, runtime(), options);
  session.append(ids);
  return logits_of(session);
}

/// Rounding of float32 sums over a few hundred terms in three layers.
constexpr float kRounding = 2e-3f;

void expect_close(const std::vector<float>& a, const std::vector<float>& b, float tolerance) {
  ASSERT_EQ(a.size(), b.size());
  float largest = 0;
  for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::fabs(a[i] - b[i]));
  EXPECT_LE(largest, tolerance);
}

TEST(Session, ForkAndRewindEqualAnUninterruptedRead) {
  const std::vector<int32_t> prompt = tokens(200), left = tokens(30, 2), right = tokens(41, 3);
  Session trunk(seedling(), runtime());
  trunk.append(prompt);
  Session a = trunk.fork();
  a.append(left);
  Session b = trunk.fork();
  b.append(tokens(100, 4));
  b.rewind(100);
  b.append(right);
  trunk.append(right);  // writes to a shared page

  const auto chunks = [&](const std::vector<int32_t>& tail) {
    Session session(seedling(), runtime());
    session.append(prompt);
    session.append(tail);
    return logits_of(session);
  };
  EXPECT_EQ(logits_of(a), chunks(left));
  EXPECT_EQ(logits_of(b), chunks(right));
  EXPECT_EQ(logits_of(trunk), chunks(right));
}

TEST(Session, RewindToZeroEqualsANewSession) {
  Session session(seedling(), runtime());
  session.append(tokens(150, 9));
  session.rewind(150);
  EXPECT_EQ(session.length(), 0);
  EXPECT_TRUE(session.logits().empty());
  session.append(tokens(70));
  EXPECT_EQ(logits_of(session), read_straight(tokens(70)));
}

TEST(Session, ForksShareAllPagesUntilOneWrites) {
  Session trunk(seedling(), runtime());
  trunk.append(tokens(640));
  const size_t before = trunk.sequence().kv(0).store().bytes_in_use();
  Session fork = trunk.fork();
  EXPECT_EQ(trunk.sequence().kv(0).store().bytes_in_use(), before);
  fork.append(tokens(1));
  const size_t tables = static_cast<size_t>(trunk.sequence().layers()) * trunk.sequence().kv(0).heads();
  EXPECT_EQ(trunk.sequence().kv(0).store().bytes_in_use(),
            before + tables * trunk.sequence().kv(0).store().shape().bytes());
}

TEST(Session, DestroyedForksReleaseTheirPages) {
  Session trunk(seedling(), runtime());
  trunk.append(tokens(100));
  const size_t before = trunk.sequence().kv(0).store().bytes_in_use();
  {
    Session fork = trunk.fork();
    fork.append(tokens(500));
    EXPECT_GT(trunk.sequence().kv(0).store().bytes_in_use(), before);
  }
  EXPECT_EQ(trunk.sequence().kv(0).store().bytes_in_use(), before);
}

TEST(Session, ChunksChangeResultsByRoundingOnly) {
  const std::vector<int32_t> prompt = tokens(300);
  SessionOptions whole, sevens, ones;
  whole.cache = sevens.cache = ones.cache = "f32";
  sevens.chunk = 7;
  ones.chunk = 1;
  const std::vector<float> expected = read_straight(prompt, whole, floats());
  expect_close(expected, read_straight(prompt, sevens, floats()), kRounding);
  expect_close(expected, read_straight(prompt, ones, floats()), kRounding);
}

TEST(Session, MoveToDoesNotChangeLogits) {
  // Rotary positions are relative, so moving all pages before continuing changes nothing.
  SessionOptions options;
  options.cache = "f32";
  const std::vector<int32_t> prompt = tokens(150), tail = tokens(20, 5);
  for (const int64_t position : {64, 1000, 100000}) {
    Session unmoved(floats(), runtime(), options), moved(floats(), runtime(), options);
    unmoved.append(prompt);
    moved.append(prompt);
    moved.move_to(position);
    unmoved.append(tail);
    moved.append(tail);
    EXPECT_EQ(moved.sequence().next_position(), position + 170);
    expect_close(logits_of(unmoved), logits_of(moved), kRounding);
  }
}

TEST(Session, MaskingEqualsReadingTheOtherTokensAtTheirPositions) {
  // Tokens are masked before later tokens are read, so the later tokens attend to them in no layer.
  SessionOptions options;
  options.cache = "f32";
  const std::vector<int32_t> head = tokens(90), masked_tokens = tokens(77, 6), tail = tokens(60, 7);
  Session masked(floats(), runtime(), options);
  masked.append(head);
  masked.append(masked_tokens);
  masked.mask(90, 167);
  masked.append(tail);

  Session kept(floats(), runtime(), options);
  kept.append(head);
  std::vector<int64_t> positions(tail.size());
  std::iota(positions.begin(), positions.end(), 167);
  AppendOptions append;
  append.positions = positions;
  kept.append(tail, append);
  expect_close(logits_of(masked), logits_of(kept), kRounding);
  EXPECT_LT(test::cosine(masked.logits(), read_straight(
                                              [&] {
                                                std::vector<int32_t> all = head;
                                                all.insert(all.end(), masked_tokens.begin(), masked_tokens.end());
                                                all.insert(all.end(), tail.begin(), tail.end());
                                                return all;
                                              }(),
                                              options, floats())),
            0.999);
}

TEST(Session, AWindowThatCoversTheLengthEqualsDense) {
  SessionOptions dense, window;
  window.attend = "window:sink=0,window=1000";
  EXPECT_EQ(read_straight(tokens(400), dense), read_straight(tokens(400), window));
}

TEST(Session, BatchedStepsEqualSeparateSteps) {
  std::vector<Session> alone, together;
  for (int i = 0; i < 5; ++i) {
    Session session(seedling(), runtime());
    session.append(tokens(50 + 64 * i, 20 + i));
    together.push_back(session.fork());
    alone.push_back(std::move(session));
  }
  for (int step = 0; step < 3; ++step) {
    std::vector<Session*> batch;
    std::vector<int32_t> next;
    for (size_t i = 0; i < together.size(); ++i) {
      batch.push_back(&together[i]);
      next.push_back(static_cast<int32_t>(400 + 31 * i + step));
      alone[i].append({&next[i], 1});
    }
    Session::step(batch, next);
    for (size_t i = 0; i < together.size(); ++i)
      EXPECT_EQ(logits_of(alone[i]), logits_of(together[i])) << "sequence " << i;
  }
}

TEST(Session, StepRejectsRepeatedSessionsAndWrongTokenCounts) {
  Session session(seedling(), runtime());
  session.append(tokens(20));
  Session other = session.fork();
  Session* twice[] = {&session, &other, &session};
  EXPECT_THROW(Session::step(twice, tokens(3)), Error);
  EXPECT_THROW(Session::step(twice, tokens(2)), Error);
  EXPECT_EQ(session.length(), 20) << "no token was read";
  EXPECT_EQ(other.length(), 20);
}

TEST(Session, RowLogitsEqualReadingUpToTheRow) {
  const std::vector<int32_t> prompt = tokens(130);
  SessionOptions options;
  options.chunk = 64;
  Session session(seedling(), std::make_shared<Runtime>(2),
                  options);  // its own runtime: the callback runs other sessions during the pass
  std::vector<int64_t> visited;
  AppendOptions append;
  append.needs_logits = [](int64_t i) { return i % 50 == 49 || i == 129; };
  append.on_logits = [&](int64_t i, std::span<const float> logits) {
    visited.push_back(i);
    const std::vector<float> expected = read_straight({prompt.begin(), prompt.begin() + i + 1}, options);
    EXPECT_GT(test::cosine(expected, logits), 0.9999) << i;
  };
  session.append(prompt, append);
  EXPECT_EQ(visited, (std::vector<int64_t>{49, 99, 129}));
}

TEST(Session, RejectsInvalidTokensAndChangesNothing) {
  SessionOptions options;
  options.context = 100;
  Session session(seedling(), runtime(), options);
  session.append(tokens(40));
  const std::vector<float> before = logits_of(session);
  const int32_t bad[] = {300, 4096};
  const int32_t negative[] = {-1};
  EXPECT_THROW(session.append(bad), Error);
  EXPECT_THROW(session.append(negative), Error);
  EXPECT_THROW(session.append({}), Error);
  EXPECT_THROW(session.append(tokens(61)), Error);
  EXPECT_EQ(session.length(), 40);
  EXPECT_EQ(logits_of(session), before);
  session.append(tokens(60, 2));
  EXPECT_EQ(session.length(), 100);
}

/// Requests a stop while a layer is computed.
class StopAt final : public AttentionWatcher {
 public:
  StopAt(int layer, StopToken& stop) : layer_(layer), stop_(stop) {}
  bool watches(int layer) const override { return layer == layer_; }
  void observe(const AttendedBlock&) override { stop_.request_stop(); }

 private:
  int layer_;
  StopToken& stop_;
};

TEST(Session, AnInterruptedPassChangesNeitherPagesNorMethodStates) {
  const std::vector<int32_t> prompt = tokens(640), other = tokens(128, 3), tail = tokens(20, 2);
  const auto expect_unchanged = [&](SessionOptions options, bool same_bits = true) {
    SCOPED_TRACE(testing::Message() << "attend " << options.attend << " evict " << options.evict);
    StopToken stop;
    options.stop = &stop;
    Session straight(seedling(), runtime(), options), interrupted(seedling(), runtime(), options);
    straight.append(prompt);
    interrupted.append(prompt);
    const size_t bytes = interrupted.sequence().bytes();
    for (const int layer : {0, 2}) {
      StopAt watcher(layer, stop);
      interrupted.watch(&watcher);
      try {
        interrupted.append(other);
        FAIL() << "the pass was not interrupted";
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), Error::Kind::kInterrupted);
      }
      stop.reset();
      EXPECT_EQ(interrupted.length(), 640);
      EXPECT_EQ(interrupted.sequence().ids().size(), 640);
      EXPECT_EQ(interrupted.sequence().bytes(), bytes);
      EXPECT_TRUE(interrupted.logits().empty());
    }
    interrupted.watch(nullptr);
    steps(straight, tail);
    steps(interrupted, tail);
    if (same_bits) {
      EXPECT_EQ(logits_of(interrupted), logits_of(straight));
    } else {
      EXPECT_GT(test::cosine(logits_of(interrupted), logits_of(straight)), 0.99);
    }
  };
  for (const char* attend :
       {"dense", "quest:budget=128,dense_layers=0", "tokenselect:budget=64,window=64",
        "shadowkv:budget=64,outliers=4", "squeezed:min_context=200,pruned=0.8,iterations=3",
        "hip:budget=64,window=32,dense_layers=0,refresh=3", "infllm:window=64,sink=16,block=32,topk=2",
        "layers:full=1,then=(tokenselect:budget=64,window=64),else=(shadowkv:budget=64)"})
    expect_unchanged({.attend = attend});
  // recycled: the first step after a rewind is a full one, so bits differ
  expect_unchanged({.attend = "recycled:budget=64,stride=4"}, false);
  for (const char* evict : {"h2o:budget=700", "snapkv:budget=700", "tova:budget=700", "expected:budget=700"})
    expect_unchanged({.evict = evict});
}

TEST(Session, UnknownMethodErrorsNameTheNearestMethod) {
  SessionOptions options;
  options.attend = "windw:sink=4";
  try {
    Session session(seedling(), runtime(), options);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Error::Kind::kUsage);
    EXPECT_NE(std::string(error.what()).find("window"), std::string::npos) << error.what();
  }
}

TEST(Session, SelectorsWhoseBudgetCoversTheLengthEqualDense) {
  const std::vector<int32_t> prompt = tokens(500), tail = tokens(40, 2), other = tokens(300, 3);
  const auto run = [&](const std::string& attend) {
    Session session(seedling(), runtime(), {.attend = attend});
    session.append(prompt);
    Session fork = session.fork();
    fork.append(other);
    fork.rewind(400);  // ends inside shared pages
    fork.append(other);
    for (const int32_t token : tail) session.append({&token, 1});
    return std::pair{logits_of(session), logits_of(fork)};
  };
  const auto dense = run("dense");
  for (const char* attend :
       {"quest:budget=100k,dense_layers=0", "lm-infinite:window=100k", "layers:full=1,then=quest",
        "tokenselect:budget=100k", "tokenselect:budget=100k,positions=compacted,theta=0.5", "recycled:budget=100k",
        "recycled:stride=1,cosine=1", "shadowkv:budget=100k", "squeezed:pruned=0,min_context=128",
        "tempscale:tau=1", "layers:full=1,then=(recycled:stride=1,cosine=1),else=(tokenselect:budget=100k)"})
    EXPECT_EQ(run(attend), dense) << attend;
}

TEST(Session, AForkWithAnotherSelectorUsesExistingPages) {
  const char* quest = "quest:budget=128,window=16,dense_layers=1";
  Session dense(seedling(), runtime());
  dense.append(tokens(600));
  Session fork = dense.fork(quest), twin = dense.fork(quest);
  fork.append(tokens(3, 5));
  twin.append(tokens(3, 5));
  dense.append(tokens(3, 5));
  EXPECT_EQ(logits_of(fork), logits_of(twin));
  EXPECT_NE(logits_of(fork), logits_of(dense));
}

TEST(Session, SelectorStatesAreIndependentOfForksAndRewinds) {
  const std::vector<int32_t> prompt = tokens(700), tail = tokens(20, 2), other = tokens(9, 3);
  for (const char* attend :
       {"tokenselect:budget=64,window=64,sink=4", "tokenselect:budget=64,window=64,sink=4,positions=compacted",
        "tokenselect:budget=64,window=64,theta=0.9", "recycled:budget=64,stride=4", "shadowkv:budget=64,outliers=4",
        "shadowkv:budget=64,outliers=4,rank=24", "squeezed:min_context=200,pruned=0.8,iterations=3"}) {
    Session alone(seedling(), runtime(), {.attend = attend}), trunk(seedling(), runtime(), {.attend = attend});
    alone.append(prompt);
    trunk.append(prompt);
    Session fork = trunk.fork();
    steps(fork, other);
    steps(alone, tail);
    steps(trunk, tail);
    EXPECT_EQ(logits_of(trunk), logits_of(alone)) << attend;
    Session dense(seedling(), runtime());
    dense.append(prompt);
    steps(dense, tail);
    EXPECT_NE(logits_of(trunk), logits_of(dense)) << attend;
    EXPECT_GT(test::cosine(logits_of(trunk), logits_of(dense)), 0.5) << attend;
    fork.rewind(9 + 60);  // ends inside the prompt
    fork.append(tokens(60, 4));
    steps(fork, other);
    EXPECT_EQ(fork.length(), 709);
    Session late = dense.fork(attend);  // its method state starts empty
    steps(late, other);
    late.rewind(4);
    steps(late, other);
    EXPECT_EQ(late.length(), 700 + 20 + 9 + 5);
  }
}

TEST(Session, LongInputsUseMemoryOnlyForPages) {
  Session session(seedling(), runtime());
  session.append(tokens(4096));
  const auto& shape = session.sequence().kv(0).store().shape();
  EXPECT_EQ(session.sequence().kv(0).store().bytes_in_use(),
            4096 / kPageTokens * shape.bytes() * session.sequence().layers() * session.sequence().kv(0).heads());
}

}  // namespace
}  // namespace fathom
