// Session::draft and accept: the logits of a node equal a plain read along its path, and accepted tokens equal
// tokens read one by one.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "base/error.h"
#include "models/tiny_model.h"
#include "seed.h"
#include "session/session.h"

namespace fathom {
namespace {

std::shared_ptr<Runtime> runtime() {
  static const auto shared = std::make_shared<Runtime>(2);
  return shared;
}

std::vector<int32_t> random_text(std::mt19937& random, int64_t n) {
  std::vector<int32_t> tokens(n);
  for (int32_t& token : tokens) token = static_cast<int32_t>(random() % 512);
  return tokens;
}

void expect_near(std::span<const float> expected, std::span<const float> found, double tolerance) {
  ASSERT_EQ(expected.size(), found.size());
  for (size_t i = 0; i < expected.size(); ++i) ASSERT_NEAR(expected[i], found[i], tolerance) << "token " << i;
}

/// Returns the path from a root to a node.
std::vector<int> path_to(const DraftTree& tree, int node) {
  std::vector<int> path;
  for (; node >= 0; node = tree.parent(node)) path.insert(path.begin(), node);
  return path;
}

DraftTree random_tree(std::mt19937& random, int nodes) {
  DraftTree tree;
  for (int i = 0; i < nodes; ++i) tree.add(static_cast<int>(random() % (i + 1)) - 1);
  return tree;
}

struct DraftCase {
  int64_t depth;  // tokens before the draft
  std::string cache;
  int64_t window = 0;  // sliding window of the model
  std::string attend = "dense";
};

std::shared_ptr<const Model> model_of(int64_t window) {
  if (window == 0) return test::floats();
  test::TinyFile file;
  file.extra = [window](GgufWriter& writer) {
    writer.set("llama.attention.sliding_window", GgufType::kU32, static_cast<uint64_t>(window));
  };
  return test::open_tiny(file);
}

TEST(SessionDraft, NodeLogitsEqualAPlainReadAlongTheirPath) {
  std::mt19937 random(test::seed(0));
  for (const DraftCase& c : {DraftCase{1, "f32"}, DraftCase{60, "f32"}, DraftCase{64, "f32"}, DraftCase{130, "f32"},
                             DraftCase{200, "f32", 20}, DraftCase{190, "f32", 5}, DraftCase{150, "bf16"},
                             DraftCase{250, "f32", 0, "window:sink=4,window=100"},
                             DraftCase{300, "f32", 0, "quest:budget=64,dense_layers=0"}}) {
    SCOPED_TRACE(testing::Message() << c.depth << " tokens, " << c.cache << ", window " << c.window << ", "
                                    << c.attend);
    const auto model = model_of(c.window);
    Session session(model, runtime(), {.attend = c.attend, .cache = c.cache});
    session.append(random_text(random, c.depth));
    const DraftTree tree = random_tree(random, 40);
    const std::vector<int32_t> tokens = random_text(random, 40);
    const size_t before = session.sequence().kv(0).store().bytes_in_use();
    const std::vector<float> logits = session.draft(tree, tokens);
    const Sequence& sequence = session.sequence();
    EXPECT_LE(sequence.kv(0).store().bytes_in_use() - before,
              2u * sequence.layers() * sequence.kv(0).heads() * sequence.kv(0).shape().bytes())
        << "at most two pages per layer and head";
    session.accept({});
    EXPECT_EQ(session.length(), c.depth);
    EXPECT_EQ(session.sequence().kv(0).store().bytes_in_use(), before);
    for (int node = 0; node < tree.size(); node += 3) {
      // selectors with a budget select among full pages, and draft pages are never among them
      if (c.attend.starts_with("quest")) break;
      Session plain = session.fork();
      for (const int step : path_to(tree, node)) plain.append({&tokens[step], 1});
      ASSERT_NO_FATAL_FAILURE(
          expect_near(plain.logits(), std::span(logits).subspan(node * 512, 512), c.cache == "f32" ? 1e-4 : 0.05))
          << "node " << node;
    }
  }
}

TEST(SessionDraft, AcceptedTokensEqualTokensReadOneByOne) {
  std::mt19937 random(test::seed(0));
  for (const std::string cache : {"f32", "bf16", "q8", "q4"}) {
    for (const int64_t depth : {3, 62, 64, 127, 200}) {
      SCOPED_TRACE(testing::Message() << depth << " tokens, " << cache);
      Session drafted(test::floats(), runtime(), {.cache = cache});
      drafted.append(random_text(random, depth));
      Session plain = drafted.fork();
      for (int round = 0; round < 4; ++round) {
        const DraftTree tree = random_tree(
            random, 1 + static_cast<int>(random() % 8));  // few rows use the same matrix product as one row
        const std::vector<int32_t> tokens = random_text(random, tree.size());
        drafted.draft(tree, tokens);
        const std::vector<int> path = path_to(tree, static_cast<int>(random() % tree.size()));
        drafted.accept(path);
        for (const int node : path) plain.append({&tokens[node], 1});
        ASSERT_EQ(drafted.length(), plain.length());
        ASSERT_NO_FATAL_FAILURE(expect_near(plain.logits(), drafted.logits(), cache == "f32" ? 1e-4 : 0.1));
        const std::vector<int32_t> next = random_text(random, 1);
        drafted.append(next);
        plain.append(next);
        ASSERT_NO_FATAL_FAILURE(expect_near(plain.logits(), drafted.logits(), cache == "f32" ? 1e-4 : 0.1));
      }
    }
  }
}

TEST(SessionDraft, EvictorsAndSelectorsReceiveOnlyAcceptedRows) {
  std::mt19937 random(test::seed(5));
  for (const auto& [attend, evict] : {std::pair<std::string, std::string>{"quest:budget=1k,dense_layers=0", "none"},
                                      {"dense", "h2o:budget=100,slack=8"},
                                      {"dense", "snapkv:budget=100,slack=8"},
                                      {"dense", "sirllm:budget=100,slack=8"}}) {
    SCOPED_TRACE(attend + " " + evict);
    Session drafted(test::floats(), runtime(), {.attend = attend, .cache = "f32", .evict = evict});
    drafted.append(random_text(random, 90));
    Session plain = drafted.fork();
    for (int round = 0; round < 30; ++round) {
      const DraftTree tree = random_tree(random, 6);
      const std::vector<int32_t> tokens = random_text(random, 6);
      drafted.draft(tree, tokens);
      const int root = 0;
      drafted.accept({&root, 1});
      plain.append({&tokens[0], 1});
      ASSERT_NO_FATAL_FAILURE(expect_near(plain.logits(), drafted.logits(), 1e-4)) << "round " << round;
      for (int layer = 0; layer < plain.sequence().layers(); ++layer) {
        const PageTable &a = plain.sequence().kv(layer).table(0), &b = drafted.sequence().kv(layer).table(0);
        ASSERT_EQ(a.size(), b.size());
        for (size_t e = 0; e < a.size(); ++e) ASSERT_EQ(a[e].mask, b[e].mask) << "other tokens were evicted";
      }
    }
  }
}

TEST(SessionDraft, RejectsUnsupportedMethodsAndInvalidDrafts) {
  Session tokenselect(test::floats(), runtime(), {.attend = "tokenselect:budget=64"});
  tokenselect.append(std::vector<int32_t>(100, 3));
  const DraftTree tree = DraftTree::chain(2);
  const std::vector<int32_t> tokens{1, 2}, invalid{1, 700}, few{1};
  EXPECT_THROW(tokenselect.draft(tree, tokens), Error);
  EXPECT_EQ(tokenselect.length(), 100);
  Session session(test::floats(), runtime());
  session.append(tokens);
  EXPECT_THROW(session.draft(tree, invalid), Error);
  EXPECT_THROW(session.draft(tree, few), Error);
  EXPECT_THROW(session.accept({}), Error) << "no draft is open";
  session.draft(tree, tokens);
  EXPECT_THROW(session.append(tokens), Error) << "a draft is open";
  EXPECT_THROW(session.fork(), Error);
  EXPECT_THROW(session.rewind(1), Error);
  session.accept(std::vector<int>{0, 1});
  EXPECT_EQ(session.length(), 4);
  DraftTree large;
  for (int i = 0; i < DraftTree::kMaxNodes; ++i) large.add(-1);
  EXPECT_THROW(large.add(-1), Error);
  EXPECT_THROW(large.add(64), Error);
}

}  // namespace
}  // namespace fathom
