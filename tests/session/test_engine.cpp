// Engine::forward: mixed batches, their results, and members that fail. Prefix sharing between sessions.
#include "session/engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "attend/methods.h"
#include "base/error.h"
#include "models/decoder.h"
#include "models/tiny_model.h"
#include "seed.h"
#include "session/session.h"

namespace fathom {
namespace {

using test::floats;

/// Returns random tokens.
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
  /// Runs a pass over one sequence and returns the logits of its last row.
  std::vector<float> read(Sequence& sequence, std::span<const int32_t> tokens) {
    const int64_t last = std::ssize(tokens) - 1;
    Rows own = rows(sequence, tokens);
    own.output_rows = {&last, 1};
    engine_->forward({&own, 1});
    own.result.throw_if_failed();
    return own.result.logits;
  }

  std::shared_ptr<Engine> engine_ = std::make_shared<Engine>(floats(), std::make_shared<Runtime>(2));
  std::unique_ptr<Selector> dense_;
};

TEST_F(EngineTest, MixedBatchesMatchSeparatePasses) {
  const std::vector<int32_t> long_text = text(150), short_text = text(70, 2), other = text(40, 3);
  Sequence a = sequence(), b = sequence(), c = sequence();
  read(b, short_text);
  read(c, other);
  const std::vector<int32_t> step{7}, nodes{1, 2, 3, 4, 5};
  OpenDraft draft;
  for (const int parent : {-1, 0, 0, 1, -1}) draft.tree.add(parent);
  draft.tokens = nodes;
  const std::vector<int64_t> of_a{10, 149}, of_b{0}, of_c{0, 1, 2, 3, 4};
  const auto run = [&](std::vector<Sequence*> members) {
    std::vector<Rows> batch;
    for (Sequence* member : members) {
      if (member == &a) batch.push_back(rows(a, long_text)), batch.back().output_rows = of_a;
      if (member == &b) batch.push_back(rows(b, step)), batch.back().output_rows = of_b;
      if (member == &c) batch.push_back(rows(c, {})), batch.back().draft = &draft, batch.back().output_rows = of_c;
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
  EXPECT_EQ(together[0], alone_a[0]);
  EXPECT_EQ(together[1], alone_b[0]);
  EXPECT_EQ(together[2], alone_c[0]);
}

TEST_F(EngineTest, SmallDecodeBatchesEqualSeparateSteps) {
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
    batch.back().output_rows = {&first, 1};
  }
  engine_->forward(batch);
  for (size_t i = 0; i < 8; ++i)
    EXPECT_EQ(batch[i].result.logits, read(alone[i], std::span(tokens).subspan(i, 1))) << i;
}

TEST_F(EngineTest, AFailedMemberDoesNotAffectTheOthers) {
  Sequence good = sequence(), bad = sequence(), twin = sequence();
  read(bad, text(10));
  const std::vector<int32_t> valid = text(12, 2), invalid{1, 600};
  const int64_t last = 11;
  std::vector<Rows> batch{rows(good, valid), rows(bad, invalid)};
  batch[0].output_rows = {&last, 1};
  engine_->forward(batch);
  EXPECT_FALSE(batch[0].result.error);
  EXPECT_EQ(batch[0].result.logits, read(twin, valid));
  EXPECT_EQ(bad.tokens(), 10);
  try {
    batch[1].result.throw_if_failed();
    FAIL() << "token id 600 is outside the vocabulary";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("600"), std::string::npos) << error.what();
  }
  EXPECT_EQ(read(bad, text(5, 4)).size(), 512u) << "the sequence can continue";
}

TEST_F(EngineTest, ExhaustedMemoryNamesTheBudgetAndChangesNothing) {
  const size_t page = PageShape{PageFormat::kF32, 16, 16}.bytes();
  const auto small = std::make_shared<Engine>(floats(), std::make_shared<Runtime>(1),
                                              EngineOptions{.memory = page * 3 * 2 * 4});  // 4 pages per head
  Sequence fits = small->new_sequence({.cache = "f32"}), grows = small->new_sequence({.cache = "f32"});
  const auto pass = [&](std::span<Rows> batch) { small->forward(batch); };
  const std::vector<int32_t> first = text(100), more = text(200, 2);
  std::vector<Rows> one{rows(fits, first)};
  pass(one);
  one[0].result.throw_if_failed();
  std::vector<Rows> batch{rows(grows, more), rows(fits, std::span(first).first(3))};
  pass(batch);
  EXPECT_FALSE(batch[1].result.error) << "the other member succeeds";
  EXPECT_EQ(fits.tokens(), 103);
  EXPECT_EQ(grows.tokens(), 0);
  try {
    batch[0].result.throw_if_failed();
    FAIL() << "200 tokens do not fit";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Error::Kind::kOutOfMemory);
    EXPECT_NE(std::string(error.what()).find("--memory"), std::string::npos) << error.what();
  }
  EXPECT_EQ(small->pages().budget()->in_use(), page * 3 * 2 * 2) << "the failed pass released its pages";
  fits.truncate(0);
  pass(std::span(batch).first(1));
  EXPECT_FALSE(batch[0].result.error) << "memory is free again";
}

TEST_F(EngineTest, RejectsASequenceThatIsInABatchTwice) {
  Sequence one = sequence();
  const std::vector<int32_t> tokens = text(3);
  std::vector<Rows> batch{rows(one, tokens), rows(one, tokens)};
  EXPECT_THROW(engine_->forward(batch), Error);
  EXPECT_EQ(one.tokens(), 0);
}

TEST_F(EngineTest, TopTokensAreTheLargestLogits) {
  Sequence one = sequence(), twin = sequence();
  const std::vector<int32_t> tokens = text(30);
  const std::vector<int64_t> outputs{5, 29};
  Rows top = rows(one, tokens), all = rows(twin, tokens);
  top.output_rows = all.output_rows = outputs;
  top.top_k = 4;
  engine_->forward({&top, 1});
  engine_->forward({&all, 1});
  EXPECT_TRUE(top.result.logits.empty());
  ASSERT_EQ(top.result.top.size(), 8u);
  for (size_t w = 0; w < 2; ++w) {
    std::vector<float> row(all.result.logits.begin() + w * 512, all.result.logits.begin() + (w + 1) * 512);
    for (size_t i = 0; i < 4; ++i) {
      const TokenLogit& found = top.result.top[w * 4 + i];
      EXPECT_EQ(found.logit, row[found.token]);
      EXPECT_EQ(found.logit, *std::ranges::max_element(row));
      row[found.token] = -INFINITY;
    }
  }
}

TEST_F(EngineTest, ReturnsHiddenStatesOfLayers) {
  Sequence one = sequence();
  const std::vector<int32_t> tokens = text(20);
  const std::vector<int64_t> outputs{3, 19};
  const std::vector<int> layers{0, 2};
  Rows own = rows(one, tokens);
  own.output_rows = outputs;
  own.hidden_layers = layers;
  engine_->forward({&own, 1});
  own.result.throw_if_failed();
  ASSERT_EQ(own.result.hidden.size(), 2u * 2 * 64);
  // hidden state of the last row in the last layer
  Workspace& work = engine_->runtime().work();
  work.logit_rows.resize(1, 64);
  const std::vector<float> hidden(own.result.hidden.end() - 64, own.result.hidden.end());
  double square = 0;
  for (const float h : hidden) square += static_cast<double>(h) * h;
  EXPECT_GT(square, 0);
  Sequence early = engine_->new_sequence({.cache = "f32", .layers = 1});
  Rows first = rows(early, tokens);
  first.output_rows = outputs;
  first.hidden_layers = std::span(layers).first(1);
  engine_->forward({&first, 1});
  first.result.throw_if_failed();
  EXPECT_TRUE(std::equal(first.result.hidden.begin(), first.result.hidden.end(), own.result.hidden.begin()))
      << "the first layer does not depend on later layers";
  const std::vector<int> too_many{3};
  first = rows(early, tokens);
  first.hidden_layers = too_many;
  engine_->forward({&first, 1});
  EXPECT_TRUE(first.result.error);
}

TEST_F(EngineTest, EmbeddingsOfTokensGiveTheSameLogits) {
  Sequence by_ids = sequence(), by_embeddings = sequence();
  const std::vector<int32_t> tokens = text(25);
  // the embeddings of the tokens, from the embedding table of the model
  const auto& decoder = dynamic_cast<const Decoder&>(engine_->model().network());
  std::vector<float> embeddings(25 * 64);
  for (size_t i = 0; i < 25; ++i)
    std::copy_n(reinterpret_cast<const float*>(decoder.embedding.row(tokens[i])), 64, embeddings.data() + i * 64);
  const int64_t last = 24;
  Rows own = rows(by_embeddings, {});
  own.embeddings = embeddings;
  own.output_rows = {&last, 1};
  engine_->forward({&own, 1});
  own.result.throw_if_failed();
  EXPECT_EQ(own.result.logits, read(by_ids, tokens));
  EXPECT_EQ(by_embeddings.ids()[0], -1) << "embeddings have no token id";
  own.embeddings = std::span(embeddings).first(100);
  engine_->forward({&own, 1});
  EXPECT_TRUE(own.result.error) << "not a multiple of the width";
}

TEST_F(EngineTest, StopsIfAllMembersRequestItAndChangesNothing) {
  Sequence a = sequence(), b = sequence(), twin = sequence();
  StopToken of_a, of_b;
  const std::vector<int32_t> tokens = text(30);
  const int64_t last = 29;
  const auto pass = [&] {
    std::vector<Rows> batch{rows(a, tokens), rows(b, tokens)};
    batch[0].stop = &of_a;
    batch[1].stop = &of_b;
    batch[1].output_rows = {&last, 1};
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
  EXPECT_FALSE(second[1].result.error) << "the pass stops only if all members request it";
  EXPECT_EQ(second[1].result.logits, read(twin, tokens));
}

TEST_F(EngineTest, RejectsRowsWhileADraftIsOpen) {
  Sequence one = sequence();
  read(one, text(10));
  const std::vector<int32_t> nodes{1, 2};
  OpenDraft chain{DraftTree::chain(2), nodes}, other_chain{DraftTree::chain(2), nodes};
  Rows draft = rows(one, {});
  draft.draft = &chain;
  engine_->forward({&draft, 1});
  draft.result.throw_if_failed();
  Rows next = rows(one, nodes);
  engine_->forward({&next, 1});
  EXPECT_TRUE(next.result.error);
  const std::vector<int64_t> positions{10, 11};
  Sequence other = sequence();
  Rows with_positions = rows(other, nodes);
  with_positions.draft = &other_chain;
  with_positions.positions = positions;
  engine_->forward({&with_positions, 1});
  EXPECT_TRUE(with_positions.result.error) << "the positions of a draft follow from its tree";
  EXPECT_THROW(engine_->accept(draft, std::vector<int>{1}), Error) << "not a path of the draft";
  EXPECT_EQ(one.tokens(), 10);
  engine_->forward({&next, 1});
  EXPECT_FALSE(next.result.error) << "the failed accept discarded the draft";
}

class PrefixSharing : public testing::Test {
 protected:
  Session session(int64_t chunk = 64, const std::string& cache = "bf16") {
    return Session(engine_, {.chunk = chunk, .cache = cache, .share_prefixes = true});
  }
  std::shared_ptr<Engine> engine_ = std::make_shared<Engine>(floats(), std::make_shared<Runtime>(2));
};

TEST_F(PrefixSharing, RestoresPrefixesWithIdenticalLogits) {
  std::vector<int32_t> tokens = text(300);
  Session first = session();
  first.append(tokens);
  EXPECT_EQ(first.restored(), 0);
  Session second = session();
  second.append(tokens);
  EXPECT_EQ(second.restored(), 256) << "the last token must be read for its logits";
  EXPECT_TRUE(std::ranges::equal(second.logits(), first.logits()));
  EXPECT_EQ(second.sequence().kv(0).table(0)[3].page, first.sequence().kv(0).table(0)[3].page) << "shared";
  tokens[100] ^= 1;
  Session third = session();
  third.append(tokens);
  EXPECT_EQ(third.restored(), 64) << "the block before the first difference";
  Session plain(engine_, {.chunk = 64});
  plain.append(tokens);
  EXPECT_TRUE(std::ranges::equal(third.logits(), plain.logits()));
}

TEST_F(PrefixSharing, SeparatesFormatsAndPositions) {
  const std::vector<int32_t> tokens = text(200);
  session().append(tokens);
  Session other = session(64, "q8");
  other.append(tokens);
  EXPECT_EQ(other.restored(), 0);
  Session scaled(engine_, {.chunk = 64, .position = "linear:factor=2", .share_prefixes = true});
  scaled.append(tokens);
  EXPECT_EQ(scaled.restored(), 0);
}

TEST_F(PrefixSharing, EvictsPrefixesWhenTheBudgetIsFull) {
  const size_t page = PageShape{PageFormat::kF32, 16, 16}.bytes();
  engine_ = std::make_shared<Engine>(floats(), std::make_shared<Runtime>(1),
                                     EngineOptions{.memory = page * 3 * 2 * 6});  // 6 pages per head
  for (uint32_t seed = 1; seed < 20; ++seed) {
    Session one = session(64, "f32");
    one.append(text(4 * 64, seed));
    EXPECT_EQ(one.length(), 256) << "blocks of destroyed sequences are evicted";
  }
  Session last = session(64, "f32");
  EXPECT_THROW(last.append(text(7 * 64)), Error);
}

}  // namespace
}  // namespace fathom
