// Session::draft and accept: the logits of a node equal, bit by bit, those of reading its path token by token, and
// accepted tokens equal tokens read one by one.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "attend/methods.h"
#include "base/error.h"
#include "models/tiny_model.h"
#include "paths.h"
#include "seed.h"
#include "seedling.h"
#include "session/session.h"
#include "shared_data.h"
#include "tiny_goldens.h"

namespace fathom {
namespace {

using test::runtime;
using test::seedling;

std::vector<int32_t> random_text(std::mt19937& random, int64_t n, uint32_t vocabulary = 512) {
  std::vector<int32_t> tokens(n);
  for (int32_t& token : tokens) token = static_cast<int32_t>(random() % vocabulary);
  return tokens;
}

void expect_equal(std::span<const float> expected, std::span<const float> found) {
  ASSERT_EQ(expected.size(), found.size());
  for (size_t i = 0; i < expected.size(); ++i) ASSERT_EQ(expected[i], found[i]) << "token " << i;
}

DraftTree random_tree(std::mt19937& random, int nodes) {
  DraftTree tree;
  for (int i = 0; i < nodes; ++i) tree.add(static_cast<int>(random() % (i + 1)) - 1);
  return tree;
}

/// Expects each third node of a random draft to have the logits of its path read token by token.
void expect_node_logits(Session& session, const DraftTree& tree, std::span<const int32_t> tokens) {
  const int64_t length = session.length(), vocabulary = session.model().config().vocabulary;
  const size_t before = session.engine().pages().budget()->in_use();
  const std::span<const float> drafted = session.draft(tree, tokens);
  const std::vector<float> logits(drafted.begin(), drafted.end());
  session.accept({});
  EXPECT_EQ(session.length(), length);
  EXPECT_EQ(session.engine().pages().budget()->in_use(), before);
  for (int node = 0; node < tree.size(); node += 3) {
    Session plain = session.fork();
    for (const int step : tree.path(node)) plain.append({&tokens[step], 1});
    ASSERT_NO_FATAL_FAILURE(expect_equal(plain.logits(), std::span(logits).subspan(node * vocabulary, vocabulary)))
        << "node " << node;
  }
}

struct DraftCase {
  int64_t depth;  // tokens before the draft
  std::string cache;
  int64_t window = 0;  // sliding window of the model
  std::string attend = "dense";
};

std::shared_ptr<const Model> model_with_window(int64_t window) {
  if (window == 0) return test::floats();
  test::TinyFile file;
  file.extra = [window](GgufWriter& writer) {
    writer.set("llama.attention.sliding_window", GgufType::kU32, static_cast<uint64_t>(window));
  };
  return test::open_tiny(file);
}

TEST(SessionDraft, NodeLogitsEqualAPlainReadAlongTheirPath) {
  std::mt19937 random(test::seed(0));
  for (const DraftCase& c : {DraftCase{1, "f32"}, DraftCase{60, "f32"}, DraftCase{64, "q8"}, DraftCase{130, "q4"},
                             DraftCase{200, "f32", 20}, DraftCase{190, "f32", 5}, DraftCase{150, "bf16"},
                             DraftCase{2040, "bf16"}, DraftCase{250, "f32", 0, "window:sink=4,window=100"}}) {
    SCOPED_TRACE(testing::Message() << c.depth << " tokens, " << c.cache << ", window " << c.window << ", "
                                    << c.attend);
    Session session(model_with_window(c.window), runtime(), {.attend = c.attend, .cache = c.cache});
    session.append(random_text(random, c.depth));
    ASSERT_NO_FATAL_FAILURE(expect_node_logits(session, random_tree(random, 40), random_text(random, 40)));
  }
}

TEST(SessionDraft, NodeLogitsEqualAPlainReadWithQuantisedWeights) {
  std::mt19937 random(test::seed(1));
  for (const int64_t depth : {3, 63, 500}) {
    Session session(seedling(), runtime());
    session.append(random_text(random, depth, 4096));
    for (const int nodes : {1, 2, 9, 33, 64})
      ASSERT_NO_FATAL_FAILURE(
          expect_node_logits(session, random_tree(random, nodes), random_text(random, nodes, 4096)))
          << depth << " tokens, " << nodes << " nodes";
  }
}

TEST(SessionDraft, NodeLogitsEqualAPlainReadOfEveryArchitecture) {
  std::mt19937 random(test::seed(2));
  for (const char* name : test::tiny_goldens()) {
    const std::string path = test::golden(name) + ".gguf";
    FATHOM_NEEDS(path);
    SCOPED_TRACE(name);
    Session session(Model::open(path), runtime());
    if (session.draft_shape() == Session::DraftShape::kNone) continue;
    session.append(random_text(random, 100, 200));
    const bool chain = session.draft_shape() == Session::DraftShape::kChain;
    ASSERT_NO_FATAL_FAILURE(expect_node_logits(session, chain ? DraftTree::chain(12) : random_tree(random, 12),
                                               random_text(random, 12, 200)));
  }
}

/// Reads drafts and accepts a part of each, and reads the accepted tokens one by one in a copy. Expects equal
/// logits after each.
void expect_accepted_tokens(Session& drafted, std::mt19937& random, int rounds, int64_t depth) {
  drafted.append(random_text(random, depth));
  Session plain = drafted.fork();
  const bool chain = drafted.draft_shape() == Session::DraftShape::kChain;
  for (int round = 0; round < rounds; ++round) {
    const int nodes = 1 + static_cast<int>(random() % 12);
    const DraftTree tree = chain ? DraftTree::chain(nodes) : random_tree(random, nodes);
    const std::vector<int32_t> tokens = random_text(random, nodes);
    drafted.draft(tree, tokens);
    const std::vector<int> path = tree.path(static_cast<int>(random() % nodes));
    drafted.accept(path);
    for (const int node : path) plain.append({&tokens[node], 1});
    ASSERT_EQ(drafted.length(), plain.length());
    ASSERT_NO_FATAL_FAILURE(expect_equal(plain.logits(), drafted.logits())) << "round " << round;
    const std::vector<int32_t> next = random_text(random, 1);
    drafted.append(next);
    plain.append(next);
    ASSERT_NO_FATAL_FAILURE(expect_equal(plain.logits(), drafted.logits())) << "round " << round;
  }
}

TEST(SessionDraft, AcceptedTokensEqualTokensReadOneByOne) {
  std::mt19937 random(test::seed(0));
  for (const std::string cache : {"f32", "bf16", "q8", "q4"}) {
    for (const int64_t depth : {3, 62, 64, 127, 200}) {
      SCOPED_TRACE(testing::Message() << depth << " tokens, " << cache);
      Session drafted(test::floats(), runtime(), {.cache = cache});
      ASSERT_NO_FATAL_FAILURE(expect_accepted_tokens(drafted, random, 4, depth));
    }
  }
}

TEST(SessionDraft, AcceptedTokensEqualTokensReadOneByOneWithEverySelector) {
  std::mt19937 random(test::seed(3));
  int tested = 0;
  for (const auto& entry : attend_methods().entries()) {
    if (!entry.info.capabilities.works_with_drafts || entry.info.name == "softplus") continue;
    std::string spec = entry.info.name;
    const auto has = [&](const char* name) {
      return std::ranges::count(entry.info.parameters, name, &Parameter::name) > 0;
    };
    // The second budget leaves room for some of the tokens beyond sink and window, in steps that a token can
    // change.
    for (const char* budget : {"64", "150"}) {
      std::string parameters;
      const auto set = [&](const std::string& text) { parameters += (parameters.empty() ? ":" : ",") + text; };
      if (has("budget")) set(std::string("budget=") + budget);
      if (has("dense_layers")) set("dense_layers=0");
      if (has("window")) set(has("budget") ? "window=32" : "window=70");
      if (has("min_context")) set("min_context=101");
      if (spec == "layers")
        parameters = concat(":full=0,else=(quest:window=32,dense_layers=0,budget=", budget, ")");
      SCOPED_TRACE(spec + parameters);
      Session drafted(test::floats(), runtime(), {.attend = spec + parameters, .cache = "f32"});
      ASSERT_NO_FATAL_FAILURE(expect_accepted_tokens(drafted, random, 40, 250));
      ++tested;
    }
  }
  EXPECT_GE(tested, 10);
}

TEST(SessionDraft, RecurrentModelsAcceptPartsOfChains) {
  std::mt19937 random(test::seed(4));
  for (const char* name : {"tiny-mamba-f16", "tiny-mamba2-f16"}) {
    const std::string path = test::golden(name) + ".gguf";
    FATHOM_NEEDS(path);
    Session drafted(Model::open(path), runtime());
    EXPECT_EQ(drafted.draft_shape(), Session::DraftShape::kChain);
    ASSERT_NO_FATAL_FAILURE(expect_accepted_tokens(drafted, random, 20, 100));
    DraftTree tree;
    tree.add(-1), tree.add(-1);
    EXPECT_THROW(drafted.draft(tree, std::vector<int32_t>{1, 2}), Error);
  }
}

TEST(SessionDraft, ABatchGivesTheResultsOfEachSessionAlone) {
  std::mt19937 random(test::seed(5));
  const auto engine = std::make_shared<Engine>(seedling(), runtime());
  std::vector<Session> sessions, alone;
  std::vector<DraftTree> trees;
  std::vector<std::vector<int32_t>> tokens;
  for (int i = 0; i < 5; ++i) {
    sessions.emplace_back(engine);
    sessions.back().append(random_text(random, 30 + 45 * i, 4096));
    alone.push_back(sessions.back().fork());
    trees.push_back(random_tree(random, 1 + 5 * i));
    tokens.push_back(random_text(random, trees.back().size(), 4096));
  }
  std::vector<Session::Step> steps;
  for (int i = 0; i < 5; ++i) steps.push_back({&sessions[i], tokens[i], &trees[i]});
  for (const std::exception_ptr& error : Session::try_steps(steps)) EXPECT_EQ(error, nullptr);
  for (int i = 0; i < 5; ++i) {
    const std::span<const float> expected = alone[i].draft(trees[i], tokens[i]);
    ASSERT_NO_FATAL_FAILURE(expect_equal(expected, sessions[i].draft_logits())) << i;
    const std::vector<int> path = trees[i].path(trees[i].size() - 1);
    sessions[i].accept(path);
    alone[i].accept(path);
  }
  std::vector<Session*> all;
  for (Session& session : sessions) all.push_back(&session);
  const std::vector<int32_t> next = random_text(random, 5, 4096);
  Session::step(all, next);
  for (int i = 0; i < 5; ++i) {
    alone[i].append({&next[i], 1});
    ASSERT_NO_FATAL_FAILURE(expect_equal(alone[i].logits(), sessions[i].logits())) << i;
  }
}

TEST(SessionDraft, AFailedMemberOfABatchChangesNothing) {
  Session good(test::floats(), runtime()), bad(test::floats(), runtime());
  good.append(std::vector<int32_t>{1, 2});
  bad.append(std::vector<int32_t>{1, 2});
  const DraftTree tree = DraftTree::chain(2);
  const std::vector<int32_t> tokens{1, 2}, invalid{1, 700};
  const Session::Step steps[] = {{&bad, invalid, &tree}, {&good, tokens, &tree}};
  const auto errors = Session::try_steps(steps);
  EXPECT_NE(errors[0], nullptr);
  EXPECT_EQ(errors[1], nullptr);
  good.accept(std::vector{0, 1});
  EXPECT_EQ(good.length(), 4);
  EXPECT_EQ(bad.length(), 2);
  bad.append(tokens);
}

TEST(SessionDraft, EvictorsReceiveOnlyAcceptedRows) {
  std::mt19937 random(test::seed(5));
  for (const std::string evict : {"h2o:budget=100,slack=8", "snapkv:budget=100,slack=8"}) {
    SCOPED_TRACE(evict);
    Session drafted(test::floats(), runtime(), {.cache = "f32", .evict = evict});
    drafted.append(random_text(random, 90));
    Session plain = drafted.fork();
    for (int round = 0; round < 30; ++round) {
      const DraftTree tree = random_tree(random, 6);
      const std::vector<int32_t> tokens = random_text(random, 6);
      drafted.draft(tree, tokens);
      const int root = 0;
      drafted.accept({&root, 1});
      plain.append({&tokens[0], 1});
      ASSERT_NO_FATAL_FAILURE(expect_equal(plain.logits(), drafted.logits())) << "round " << round;
      for (int layer = 0; layer < plain.sequence().layers(); ++layer) {
        const PageTable &a = plain.sequence().kv(layer).table(0), &b = drafted.sequence().kv(layer).table(0);
        ASSERT_EQ(a.size(), b.size());
        for (size_t e = 0; e < a.size(); ++e) ASSERT_EQ(a[e].mask, b[e].mask) << "other tokens were evicted";
      }
    }
  }
}

TEST(SessionDraft, RejectsUnsupportedMethodsAndInvalidDrafts) {
  Session em_llm(test::floats(), runtime(), {.attend = "em-llm"});
  em_llm.append(std::vector<int32_t>(100, 3));
  const DraftTree tree = DraftTree::chain(2);
  const std::vector<int32_t> tokens{1, 2}, invalid{1, 700}, few{1};
  EXPECT_EQ(em_llm.draft_shape(), Session::DraftShape::kNone);
  EXPECT_THROW(em_llm.draft(tree, tokens), Error);
  EXPECT_EQ(em_llm.length(), 100);
  Session quest(test::floats(), runtime(), {.attend = "quest:budget=64"});
  quest.append(tokens);
  DraftTree branches;
  branches.add(-1), branches.add(-1);
  EXPECT_THROW(quest.draft(branches, tokens), Error) << "a selector with a state reads chains only";
  quest.append(tokens);
  Session session(test::floats(), runtime());
  session.append(tokens);
  EXPECT_THROW(session.draft(tree, invalid), Error);
  EXPECT_THROW(session.draft(tree, few), Error);
  EXPECT_THROW(session.accept({}), Error) << "no draft is open";
  session.draft(tree, tokens);
  EXPECT_THROW(session.append(tokens), Error) << "a draft is open";
  EXPECT_THROW(session.fork(), Error);
  EXPECT_THROW(session.rewind(1), Error);
  EXPECT_THROW(session.accept(std::vector<int>{1}), Error) << "not a path";
  EXPECT_EQ(session.length(), 2);
  session.draft(tree, tokens);
  session.accept(std::vector<int>{0, 1});
  EXPECT_EQ(session.length(), 4);
  DraftTree large;
  for (int i = 0; i < DraftTree::kMaxNodes; ++i) large.add(-1);
  EXPECT_THROW(large.add(-1), Error);
  EXPECT_THROW(large.add(64), Error);
}

}  // namespace
}  // namespace fathom
