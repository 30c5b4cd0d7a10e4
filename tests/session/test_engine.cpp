// The one forward pass: batches of any mixture, what they give, and how members fail.
#include "session/engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "attend/methods.h"
#include "base/error.h"
#include "models/decoder.h"
#include "models/tiny_model.h"
#include "session/session.h"
#include "seed.h"

namespace fathom {
namespace {

using test::floats;

/// Tokens of a random text.
std::vector<int32_t> text(int64_t n, uint32_t seed = 1) {
  std::mt19937 random(test::seed(seed));
  std::vector<int32_t> tokens(n);
  for (int32_t& token : tokens) token = static_cast<int32_t>(random() % 512);
  return tokens;
}

class EngineTest : public testing::Test {
 protected:
  EngineTest() : dense_(attend_methods().make("dense")) {}

  Sequence sequence(const std::string& cache = "f32") { return engine_->new_sequence({.cache = cache}); }
  Rows rows(Sequence& sequence, std::span<const int32_t> tokens) {
    Rows rows;
    rows.sequence = &sequence;
    rows.policy.selector = dense_.get();
    rows.tokens = tokens;
    return rows;
  }
  /// Reads tokens alone, and gives the logits of the last one.
  std::vector<float> read(Sequence& sequence, std::span<const int32_t> tokens) {
    const int64_t last = std::ssize(tokens) - 1;
    Rows own = rows(sequence, tokens);
    own.wanted = {&last, 1};
    engine_->forward({&own, 1});
    own.result.throw_if_failed();
    return own.result.logits;
  }

  std::shared_ptr<Engine> engine_ = std::make_shared<Engine>(floats(), std::make_shared<Runtime>(2));
  std::unique_ptr<Selector> dense_;
};

TEST_F(EngineTest, AMixedBatchGivesEachTheBitsOfItsOwnPass) {
  const std::vector<int32_t> long_text = text(150), short_text = text(70, 2), other = text(40, 3);
  Sequence a = sequence(), b = sequence(), c = sequence();
  read(b, short_text);
  read(c, other);
  const std::vector<int32_t> step{7}, nodes{1, 2, 3, 4, 5};
  DraftTree tree;
  for (const int parent : {-1, 0, 0, 1, -1}) tree.add(parent);
  const std::vector<int64_t> of_a{10, 149}, of_b{0}, of_c{0, 1, 2, 3, 4};
  const auto run = [&](std::vector<Sequence*> members) {
    std::vector<Rows> batch;
    for (Sequence* member : members) {
      if (member == &a) batch.push_back(rows(a, long_text)), batch.back().wanted = of_a;
      if (member == &b) batch.push_back(rows(b, step)), batch.back().wanted = of_b;
      if (member == &c) batch.push_back(rows(c, nodes)), batch.back().draft = &tree, batch.back().wanted = of_c;
    }
    engine_->forward(batch);
    std::vector<std::vector<float>> logits;
    for (Rows& own : batch) {
      own.result.throw_if_failed();
      logits.push_back(own.result.logits);
      own.sequence == &c ? own.sequence->abandon() : own.sequence->truncate(own.sequence->tokens() - own.count(64));
    }
    return logits;
  };
  const auto together = run({&a, &b, &c}), alone_a = run({&a}), alone_b = run({&b}), alone_c = run({&c});
  const auto expect_near = [](const std::vector<float>& x, const std::vector<float>& y) {
    ASSERT_EQ(x.size(), y.size());
    for (size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(x[i], y[i], 1e-4) << i;
  };
  EXPECT_EQ(together[0], alone_a[0]) << "many rows: the same product";
  expect_near(together[1], alone_b[0]);  // few rows alone take another product than in a large batch
  expect_near(together[2], alone_c[0]);
}

TEST_F(EngineTest, SmallBatchesOfDecodeStepsHaveTheBitsOfSteppingAlone) {
  std::vector<Sequence> together, alone;
  for (uint32_t i = 0; i < 8; ++i) {
    together.push_back(sequence());
    read(together.back(), text(20 + 30 * i, i));
    alone.push_back(together.back().fork());
  }
  std::vector<Rows> batch;
  const std::vector<int32_t> tokens = text(8, 9);
  const int64_t first = 0;
  for (size_t i = 0; i < 8; ++i) {
    batch.push_back(rows(together[i], std::span(tokens).subspan(i, 1)));
    batch.back().wanted = {&first, 1};
  }
  engine_->forward(batch);
  for (size_t i = 0; i < 8; ++i)
    EXPECT_EQ(batch[i].result.logits, read(alone[i], std::span(tokens).subspan(i, 1))) << i;
}

TEST_F(EngineTest, AMemberThatFailsFailsAlone) {
  Sequence good = sequence(), bad = sequence(), twin = sequence();
  read(bad, text(10));
  const std::vector<int32_t> fine = text(12, 2), wrong{1, 600};
  const int64_t last = 11;
  std::vector<Rows> batch{rows(good, fine), rows(bad, wrong)};
  batch[0].wanted = {&last, 1};
  engine_->forward(batch);
  EXPECT_FALSE(batch[0].result.error);
  EXPECT_EQ(batch[0].result.logits, read(twin, fine));
  EXPECT_EQ(bad.tokens(), 10);
  try {
    batch[1].result.throw_if_failed();
    FAIL() << "token 600 is outside the vocabulary";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("600"), std::string::npos) << error.what();
  }
  EXPECT_EQ(read(bad, text(5, 4)).size(), 512u) << "it can go on";
}

TEST_F(EngineTest, MemoryThatIsExhaustedNamesTheBudgetAndLosesNothing) {
  const size_t page = PageShape{PageFormat::kF32, 16, 16}.bytes();
  const auto small = std::make_shared<Engine>(floats(), std::make_shared<Runtime>(1),
                                              EngineOptions{.memory = page * 3 * 2 * 4});  // 4 pages of each head
  Sequence fits = small->new_sequence({.cache = "f32"}), grows = small->new_sequence({.cache = "f32"});
  const auto pass = [&](std::span<Rows> batch) { small->forward(batch); };
  const std::vector<int32_t> first = text(100), more = text(200, 2);
  std::vector<Rows> one{rows(fits, first)};
  pass(one);
  one[0].result.throw_if_failed();
  std::vector<Rows> batch{rows(grows, more), rows(fits, std::span(first).first(3))};
  pass(batch);
  EXPECT_FALSE(batch[1].result.error) << "the other goes on";
  EXPECT_EQ(fits.tokens(), 103);
  EXPECT_EQ(grows.tokens(), 0);
  try {
    batch[0].result.throw_if_failed();
    FAIL() << "200 tokens do not fit";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Error::Kind::kOutOfMemory);
    EXPECT_NE(std::string(error.what()).find("--memory"), std::string::npos) << error.what();
  }
  EXPECT_EQ(small->pages().budget()->in_use(), page * 3 * 2 * 2) << "nothing is left of the attempt";
  fits.truncate(0);
  pass(std::span(batch).first(1));
  EXPECT_FALSE(batch[0].result.error) << "once there is room";
}

TEST_F(EngineTest, ASequenceMayBeInABatchOnce) {
  Sequence one = sequence();
  const std::vector<int32_t> tokens = text(3);
  std::vector<Rows> batch{rows(one, tokens), rows(one, tokens)};
  EXPECT_THROW(engine_->forward(batch), Error);
  EXPECT_EQ(one.tokens(), 0);
}

TEST_F(EngineTest, TopTokensAreTheLargestLogits) {
  Sequence one = sequence(), twin = sequence();
  const std::vector<int32_t> tokens = text(30);
  const std::vector<int64_t> wanted{5, 29};
  Rows some = rows(one, tokens), all = rows(twin, tokens);
  some.wanted = all.wanted = wanted;
  some.top_k = 4;
  engine_->forward({&some, 1});
  engine_->forward({&all, 1});
  EXPECT_TRUE(some.result.logits.empty());
  ASSERT_EQ(some.result.top.size(), 8u);
  for (size_t w = 0; w < 2; ++w) {
    std::vector<float> row(all.result.logits.begin() + w * 512, all.result.logits.begin() + (w + 1) * 512);
    for (size_t i = 0; i < 4; ++i) {
      const TokenLogit& found = some.result.top[w * 4 + i];
      EXPECT_EQ(found.logit, row[found.token]);
      EXPECT_EQ(found.logit, *std::ranges::max_element(row));
      row[found.token] = -INFINITY;
    }
  }
}

TEST_F(EngineTest, HiddenStatesGoOnToTheLayersAbove) {
  Sequence one = sequence();
  const std::vector<int32_t> tokens = text(20);
  const std::vector<int64_t> wanted{3, 19};
  const std::vector<int> layers{0, 2};
  Rows own = rows(one, tokens);
  own.wanted = wanted;
  own.hidden_layers = layers;
  engine_->forward({&own, 1});
  own.result.throw_if_failed();
  ASSERT_EQ(own.result.hidden.size(), 2u * 2 * 64);
  // the last layer's state of the last row gives its logits
  Workspace& work = engine_->runtime().work();
  work.chosen.resize(1, 64);
  const std::vector<float> hidden(own.result.hidden.end() - 64, own.result.hidden.end());
  double square = 0;
  for (const float h : hidden) square += static_cast<double>(h) * h;
  EXPECT_GT(square, 0);
  Sequence early = engine_->new_sequence({.cache = "f32", .layers = 1});
  Rows first = rows(early, tokens);
  first.wanted = wanted;
  first.hidden_layers = std::span(layers).first(1);
  engine_->forward({&first, 1});
  first.result.throw_if_failed();
  EXPECT_TRUE(std::equal(first.result.hidden.begin(), first.result.hidden.end(), own.result.hidden.begin()))
      << "the first layer does not depend on those above it";
  const std::vector<int> beyond{3};
  first = rows(early, tokens);
  first.hidden_layers = beyond;
  engine_->forward({&first, 1});
  EXPECT_TRUE(first.result.error);
}

TEST_F(EngineTest, EmbeddingsOfTokensAreTheTokens) {
  Sequence by_ids = sequence(), by_numbers = sequence();
  const std::vector<int32_t> tokens = text(25);
  // the first layer's input: a sequence of no layers cannot be run, so the embedding is read from the file's table
  const auto& decoder = dynamic_cast<const Decoder&>(engine_->model().network());
  std::vector<float> embeddings(25 * 64);
  for (size_t i = 0; i < 25; ++i)
    std::copy_n(reinterpret_cast<const float*>(decoder.embedding.row(tokens[i])), 64, embeddings.data() + i * 64);
  const int64_t last = 24;
  Rows own = rows(by_numbers, {});
  own.embeddings = embeddings;
  own.wanted = {&last, 1};
  engine_->forward({&own, 1});
  own.result.throw_if_failed();
  EXPECT_EQ(own.result.logits, read(by_ids, tokens));
  EXPECT_EQ(by_numbers.ids()[0], -1) << "no token";
  own.embeddings = std::span(embeddings).first(100);
  engine_->forward({&own, 1});
  EXPECT_TRUE(own.result.error) << "no whole rows";
}

TEST_F(EngineTest, AStopOfAllMembersEndsThePassAndLosesNothing) {
  Sequence a = sequence(), b = sequence(), twin = sequence();
  StopToken of_a, of_b;
  const std::vector<int32_t> tokens = text(30);
  const int64_t last = 29;
  const auto pass = [&] {
    std::vector<Rows> batch{rows(a, tokens), rows(b, tokens)};
    batch[0].stop = &of_a;
    batch[1].stop = &of_b;
    batch[1].wanted = {&last, 1};
    engine_->forward(batch);
    return batch;
  };
  of_a.request_stop();
  of_b.request_stop();
  for (const Rows& own : pass()) {
    ASSERT_TRUE(own.result.error);
    try {
      own.result.throw_if_failed();
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), Error::Kind::kInterrupted);
    }
    EXPECT_EQ(own.sequence->tokens(), 0);
  }
  of_b.reset();
  const std::vector<Rows> second = pass();
  EXPECT_FALSE(second[1].result.error) << "one member's stop does not end the other's pass";
  EXPECT_EQ(second[1].result.logits, read(twin, tokens));
}

TEST_F(EngineTest, AnOpenDraftMustBeClosedFirst) {
  Sequence one = sequence();
  read(one, text(10));
  const DraftTree tree = DraftTree::chain(2);
  const std::vector<int32_t> nodes{1, 2};
  Rows draft = rows(one, nodes);
  draft.draft = &tree;
  engine_->forward({&draft, 1});
  draft.result.throw_if_failed();
  Rows next = rows(one, nodes);
  engine_->forward({&next, 1});
  EXPECT_TRUE(next.result.error);
  const std::vector<int64_t> positions{10, 11};
  Sequence other = sequence();
  Rows placed = rows(other, nodes);
  placed.draft = &tree;
  placed.positions = positions;
  engine_->forward({&placed, 1});
  EXPECT_TRUE(placed.result.error) << "a draft has positions of its own";
  EXPECT_THROW(one.accept(std::vector<int>{1}), Error) << "no path";
  EXPECT_EQ(one.tokens(), 10);
  engine_->forward({&next, 1});
  EXPECT_FALSE(next.result.error) << "the failed accept closed it";
}

class Prefixes : public testing::Test {
 protected:
  Session session(int64_t chunk = 64, const std::string& cache = "bf16") {
    return Session(engine_, {.chunk = chunk, .cache = cache, .share_prefixes = true});
  }
  std::shared_ptr<Engine> engine_ = std::make_shared<Engine>(floats(), std::make_shared<Runtime>(2));
};

TEST_F(Prefixes, AreNotReadAgainAndGiveTheBitsOfReading) {
  std::vector<int32_t> tokens = text(300);
  Session first = session();
  first.append(tokens);
  EXPECT_EQ(first.restored(), 0);
  Session second = session();
  second.append(tokens);
  EXPECT_EQ(second.restored(), 256) << "the last block has the last token, whose logits are needed";
  EXPECT_TRUE(std::ranges::equal(second.logits(), first.logits()));
  EXPECT_EQ(second.sequence().kv(0).table(0)[3].page, first.sequence().kv(0).table(0)[3].page) << "shared";
  tokens[100] ^= 1;
  Session third = session();
  third.append(tokens);
  EXPECT_EQ(third.restored(), 64) << "up to where the texts differ";
  Session plain(engine_, {.chunk = 64});
  plain.append(tokens);
  EXPECT_TRUE(std::ranges::equal(third.logits(), plain.logits()));
}

TEST_F(Prefixes, OfOtherFormatsAndPositionsAreOthers) {
  const std::vector<int32_t> tokens = text(200);
  session().append(tokens);
  Session other = session(64, "q8");
  other.append(tokens);
  EXPECT_EQ(other.restored(), 0);
  Session scaled(engine_, {.chunk = 64, .position = "linear:factor=2", .share_prefixes = true});
  scaled.append(tokens);
  EXPECT_EQ(scaled.restored(), 0);
}

TEST_F(Prefixes, MakeRoomWhenTheBudgetIsFull) {
  const size_t page = PageShape{PageFormat::kF32, 16, 16}.bytes();
  engine_ = std::make_shared<Engine>(floats(), std::make_shared<Runtime>(1),
                                     EngineOptions{.memory = page * 3 * 2 * 6});  // 6 pages of each head
  for (uint32_t seed = 1; seed < 20; ++seed) {
    Session one = session(64, "f32");
    one.append(text(4 * 64, seed));
    EXPECT_EQ(one.length(), 256) << "blocks of dead sequences are dropped";
  }
  Session last = session(64, "f32");
  EXPECT_THROW(last.append(text(7 * 64)), Error);
}

}  // namespace
}  // namespace fathom
