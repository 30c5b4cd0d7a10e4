// Pseudo rows of drafts (hidden transfer): their logits equal a plain recomputation, and they change no bit of the
// logits of the draft's tokens.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "attend/methods.h"
#include "base/error.h"
#include "models/plain_llama.h"
#include "models/tiny_model.h"
#include "paths.h"
#include "seed.h"
#include "seedling.h"
#include "shared_data.h"
#include "tiny_goldens.h"

namespace fathom {
namespace {

std::vector<int32_t> random_text(std::mt19937& random, int64_t n, uint32_t vocabulary = 512) {
  std::vector<int32_t> tokens(n);
  for (int32_t& token : tokens) token = static_cast<int32_t>(random() % vocabulary);
  return tokens;
}

/// Random transfer matrices.
struct RandomTransfer {
  RandomTransfer(std::mt19937& random, int64_t width, std::vector<int> layers) {
    std::normal_distribution<float> normal(0, 1 / std::sqrt(static_cast<float>(width)));
    for (size_t i = 0; i < layers.size(); ++i) {
      values.emplace_back(width * width);
      for (float& value : values.back()) value = normal(random);
    }
    for (const std::vector<float>& w : values)
      transfer.weights.push_back({WeightType::kF32, reinterpret_cast<const std::byte*>(w.data()), width, width});
    transfer.layers = std::move(layers);
  }
  std::vector<std::vector<float>> values;
  HiddenTransfer transfer;
};

/// A draft with pseudo rows.
struct PseudoDraft {
  DraftTree tree;
  std::vector<int32_t> tokens;
  std::vector<uint8_t> steps;

  int add(int parent, int32_t token, int step = 0) {
    tokens.push_back(token);
    steps.push_back(static_cast<uint8_t>(step));
    return tree.add(parent);
  }
  Session::Step step(Session& session, const HiddenTransfer& transfer) const {
    return {&session, tokens, &tree, &transfer, steps};
  }
};

/// Returns a random draft and the same one with pseudo rows after some of its tokens, among the tokens.
struct DraftPair {
  PseudoDraft plain, pseudo;
  std::vector<int> number;  // of each token of `plain` in `pseudo`
};
DraftPair random_pair(std::mt19937& random, int nodes, int steps, bool chain, uint32_t vocabulary) {
  DraftPair pair;
  for (int i = 0; i < nodes; ++i) {
    const int parent = chain ? i - 1 : static_cast<int>(random() % (i + 1)) - 1;
    const auto token = static_cast<int32_t>(random() % vocabulary);
    pair.plain.add(parent, token);
    pair.number.push_back(pair.pseudo.add(parent < 0 ? -1 : pair.number[parent], token));
    if (chain ? i + 1 < nodes : random() % 2 == 0) continue;
    int last = pair.number.back();
    for (int s = 1; s <= steps; ++s) last = pair.pseudo.add(last, static_cast<int32_t>(random() % vocabulary), s);
  }
  return pair;
}

std::vector<float> draft_logits(const Session::Step& step) {
  if (const std::exception_ptr error = Session::try_steps({&step, 1})[0]) std::rethrow_exception(error);
  return {step.session->draft_logits().begin(), step.session->draft_logits().end()};
}

void expect_unchanged(Session& session, std::mt19937& random, const HiddenTransfer& transfer, int nodes,
                      uint32_t vocabulary) {
  const bool chain = session.draft_shape() == Session::DraftShape::kChain;
  const DraftPair pair = random_pair(random, nodes, transfer.steps(), chain, vocabulary);
  Session other = session.fork();
  const std::vector<float> plain = draft_logits({&session, pair.plain.tokens, &pair.plain.tree});
  const std::vector<float> pseudo = draft_logits(pair.pseudo.step(other, transfer));
  const int64_t size = session.model().config().vocabulary;
  for (int node = 0; node < nodes; ++node)
    for (int64_t i = 0; i < size; ++i)
      ASSERT_EQ(plain[node * size + i], pseudo[pair.number[node] * size + i]) << "node " << node << ", token " << i;
  // The accepted tokens are followed by the same logits.
  const std::vector<int> path = pair.plain.tree.path(static_cast<int>(random() % nodes));
  std::vector<int> pseudo_path;
  for (const int node : path) pseudo_path.push_back(pair.number[node]);
  session.accept(path);
  other.accept(pseudo_path);
  ASSERT_EQ(session.length(), other.length());
  const std::vector<int32_t> next = random_text(random, 1, vocabulary);
  session.append(next);
  other.append(next);
  ASSERT_TRUE(std::ranges::equal(session.logits(), other.logits()));
}

TEST(SessionTransfer, PseudoRowsEqualAPlainRecomputation) {
  std::mt19937 random(test::seed(0));
  for (const std::vector<int>& layers : {std::vector<int>{1, 1, 1}, {1, 2}, {2, 2, 2, 2}, {1, 1, 2}}) {
    const auto model = test::floats();
    const RandomTransfer random_transfer(random, 64, layers);
    const int steps = random_transfer.transfer.steps();
    Session session(model, test::runtime(), {.cache = "f32"});
    const std::vector<int32_t> text = random_text(random, 70);
    session.append(text);
    // Two tokens after the text, a branch from the first, and pseudo rows after each of the three.
    PseudoDraft draft;
    std::vector<test::PlainRow> rows;
    for (int i = 0; i < 70; ++i) {
      rows.push_back({.token = text[i], .position = i});
      for (int before = 0; before < i; ++before) rows.back().visible.push_back(before);
    }
    std::vector<int> row_of;
    const auto add = [&](int parent, int step) {
      const int node = draft.add(parent, static_cast<int32_t>(random() % 512), step);
      test::PlainRow row{.token = draft.tokens[node], .position = 70 + draft.tree.depth(node)};
      for (int i = 0; i < 70; ++i) row.visible.push_back(i);
      for (const int ancestor : draft.tree.path(node))
        if (ancestor != node) row.visible.push_back(row_of[ancestor]);
      if (step > 0) {
        int token = node;
        while (draft.steps[token] > 0) token = draft.tree.parent(token);
        row.source = row_of[token];
        row.layer = layers[step - 1];
        row.weights = random_transfer.values[step - 1].data();
      }
      row_of.push_back(static_cast<int>(rows.size()));
      rows.push_back(row);
      return node;
    };
    const int first = add(-1, 0), second = add(first, 0), branch = add(first, 0);
    for (const int token : {first, second, branch})
      for (int s = 1, last = token; s <= steps; ++s) last = add(last, s);
    const std::vector<float> found = draft_logits(draft.step(session, random_transfer.transfer));
    const test::PlainLlama::Result expected = test::PlainLlama(*model->file()).run(rows);
    for (int node = 0; node < draft.tree.size(); ++node) {
      const std::vector<double>& row = expected.logits[row_of[node]];
      double largest = 0;
      for (const double value : row) largest = std::max(largest, std::abs(value));
      for (size_t i = 0; i < row.size(); ++i)
        ASSERT_NEAR(row[i], found[node * row.size() + i], 1e-4 * largest)
            << "node " << node << ", step " << int{draft.steps[node]} << ", token " << i;
    }
    session.accept({});
  }
}

TEST(SessionTransfer, PseudoRowsChangeNoBitOfTheTokensOfADraft) {
  std::mt19937 random(test::seed(1));
  for (const std::string cache : {"f32", "bf16", "q8", "q4"}) {
    for (const int64_t depth : {3, 62, 64, 127, 300}) {
      SCOPED_TRACE(testing::Message() << cache << ", " << depth << " tokens");
      const RandomTransfer transfer(random, 64, {1, 1, 2});
      Session session(test::floats(), test::runtime(), {.cache = cache});
      session.append(random_text(random, depth));
      for (const int nodes : {1, 4, 16})
        ASSERT_NO_FATAL_FAILURE(expect_unchanged(session, random, transfer.transfer, nodes, 512));
    }
  }
}

TEST(SessionTransfer, PseudoRowsChangeNoBitWithSelectors) {
  std::mt19937 random(test::seed(2));
  for (const std::string attend : {"window:sink=4,window=70", "quest:budget=64,dense_layers=0",
                                   "recycled:budget=64,share=0", "tokenselect:budget=64"}) {
    SCOPED_TRACE(attend);
    const RandomTransfer transfer(random, 64, {1, 2});
    Session session(test::floats(), test::runtime(), {.attend = attend, .cache = "f32"});
    session.append(random_text(random, 250));
    for (int round = 0; round < 10; ++round)
      ASSERT_NO_FATAL_FAILURE(expect_unchanged(session, random, transfer.transfer, 6, 512));
  }
}

TEST(SessionTransfer, PseudoRowsChangeNoBitOfEveryArchitecture) {
  std::mt19937 random(test::seed(3));
  for (const char* name : test::tiny_goldens()) {
    const std::string path = test::golden(name) + ".gguf";
    FATHOM_NEEDS(path);
    SCOPED_TRACE(name);
    Session session(Model::open(path), test::runtime());
    const ModelConfig& model = session.model().config();
    if (session.draft_shape() == Session::DraftShape::kNone || model.layers < 2) continue;
    const RandomTransfer transfer(random, model.width, {1, 1});
    session.append(random_text(random, 100, 200));
    ASSERT_NO_FATAL_FAILURE(expect_unchanged(session, random, transfer.transfer, 7, 200));
  }
}

TEST(SessionTransfer, ABatchGivesTheResultsOfEachSessionAlone) {
  std::mt19937 random(test::seed(4));
  const auto engine = std::make_shared<Engine>(test::floats(), test::runtime());
  const RandomTransfer one(random, 64, {1, 1}), two(random, 64, {2});
  std::vector<Session> sessions;
  std::vector<PseudoDraft> drafts;
  for (int i = 0; i < 4; ++i) {
    sessions.emplace_back(engine);
    sessions.back().append(random_text(random, 30 + 45 * i));
    drafts.push_back(random_pair(random, 5, i == 2 ? 1 : 2, false, 512).pseudo);
  }
  const HiddenTransfer* transfers[] = {&one.transfer, nullptr, &two.transfer, &one.transfer};
  std::vector<Session> alone;
  std::vector<std::vector<float>> expected;
  for (int i = 0; i < 4; ++i) {
    alone.push_back(sessions[i].fork());
    Session::Step step{&alone[i], drafts[i].tokens, &drafts[i].tree, transfers[i], drafts[i].steps};
    expected.push_back(draft_logits(step));
  }
  std::vector<Session::Step> steps;
  for (int i = 0; i < 4; ++i)
    steps.push_back({&sessions[i], drafts[i].tokens, &drafts[i].tree, transfers[i], drafts[i].steps});
  for (const std::exception_ptr& error : Session::try_steps(steps)) ASSERT_EQ(error, nullptr);
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(std::ranges::equal(expected[i], sessions[i].draft_logits())) << i;
}

TEST(SessionTransfer, RejectsInvalidDraftsAndThePathToAPseudoRow) {
  std::mt19937 random(test::seed(5));
  Session session(test::floats(), test::runtime());
  session.append(std::vector<int32_t>{1, 2, 3});
  const RandomTransfer good(random, 64, {1, 1}), first_layer(random, 64, {0}), beyond(random, 64, {3}),
      descending(random, 64, {2, 1});
  const auto fails = [&](const PseudoDraft& draft, const HiddenTransfer& transfer) {
    const Session::Step step = draft.step(session, transfer);
    return Session::try_steps({&step, 1})[0] != nullptr;
  };
  PseudoDraft draft;
  draft.add(-1, 1);
  draft.add(0, 2, 1);
  draft.add(1, 2, 2);
  EXPECT_TRUE(fails(draft, first_layer.transfer));
  EXPECT_TRUE(fails(draft, beyond.transfer));
  EXPECT_TRUE(fails(draft, descending.transfer));
  PseudoDraft root, skipped, token, few = draft;
  root.add(-1, 1, 1);
  skipped.add(-1, 1), skipped.add(0, 1, 2);
  token.add(-1, 1), token.add(0, 1, 1), token.add(1, 1);
  few.steps.pop_back();
  for (const PseudoDraft& invalid : {root, skipped, token, few}) EXPECT_TRUE(fails(invalid, good.transfer));
  PseudoDraft third = draft;
  third.add(2, 1, 3);
  EXPECT_TRUE(fails(third, good.transfer)) << "there are two steps";
  EXPECT_EQ(session.length(), 3);
  draft_logits(draft.step(session, good.transfer));
  EXPECT_THROW(session.accept(std::vector<int>{0, 1}), Error);
  EXPECT_EQ(session.length(), 3);
  draft_logits(draft.step(session, good.transfer));
  session.accept(std::vector<int>{0});
  EXPECT_EQ(session.length(), 4);
}

TEST(SessionTransfer, QueriesOfACallerAttendToAllTokensOfALayer) {
  std::mt19937 random(test::seed(6));
  const auto model = test::floats();
  Session session(model, test::runtime(), {.attend = "window:sink=4,window=16", .cache = "f32"});
  EXPECT_THROW(session.attend(0, std::vector<int64_t>{0}, nullptr, nullptr), Error) << "no tokens";
  const std::vector<int32_t> text = random_text(random, 100);
  session.append(text);
  EXPECT_THROW(session.attend(3, std::vector<int64_t>{0}, nullptr, nullptr), Error) << "no such layer";
  // Layer 0 does not depend on --attend, so its keys and values are those of the plain model.
  std::vector<test::PlainRow> rows;
  for (int i = 0; i < 100; ++i) rows.push_back({.token = text[i], .position = i});
  const test::PlainLlama::Result plain = test::PlainLlama(*model->file()).run(rows);
  const std::vector<int64_t> positions{100, 107, 100};
  std::normal_distribution<float> normal;
  std::vector<float> queries(3 * 64), out(3 * 64);
  for (float& q : queries) q = normal(random);
  session.attend(0, positions, queries.data(), out.data());
  for (int row = 0; row < 3; ++row) {
    for (int h = 0; h < 4; ++h) {
      std::vector<double> query(queries.begin() + row * 64 + h * 16, queries.begin() + row * 64 + h * 16 + 16);
      test::plain_rotate(query.data(), 16, 10000, positions[row]);
      std::vector<const double*> keys, values;
      for (int i = 0; i < 100; ++i) {
        keys.push_back(plain.keys[0][i].data() + h / 2 * 16);
        values.push_back(plain.values[0][i].data() + h / 2 * 16);
      }
      const std::vector<double> expected = test::plain_attention(query.data(), keys, values, 16);
      for (int d = 0; d < 16; ++d) ASSERT_NEAR(expected[d], out[row * 64 + h * 16 + d], 1e-5);
    }
  }
}

}  // namespace
}  // namespace fathom
