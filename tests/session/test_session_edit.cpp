// Session::edit: changes in the middle of a text that was read.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "base/error.h"
#include "models/tiny_model.h"
#include "seed.h"
#include "seedling.h"
#include "shared_data.h"
#include "tiny_goldens.h"

namespace fathom {
namespace {

std::vector<int32_t> random_ids(std::mt19937& random, int64_t n) {
  std::vector<int32_t> ids(n);
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % 200);
  return ids;
}

/// Returns `ids` with the edits applied.
std::vector<int32_t> applied(const std::vector<int32_t>& ids, std::span<const TokenEdit> edits) {
  std::vector<int32_t> result;
  int64_t at = 0;
  for (const TokenEdit& edit : edits) {
    result.insert(result.end(), ids.begin() + at, ids.begin() + edit.begin);
    result.insert(result.end(), edit.tokens.begin(), edit.tokens.end());
    at = edit.end;
  }
  result.insert(result.end(), ids.begin() + at, ids.end());
  return result;
}

/// Returns up to `count` random edits of a text of n tokens: insertions, deletions and replacements.
std::vector<TokenEdit> random_edits(std::mt19937& random, int64_t n, int count) {
  std::vector<TokenEdit> edits;
  int64_t at = 0;
  for (int i = 0; i < count && at < n; ++i) {
    TokenEdit edit;
    edit.begin = at + static_cast<int64_t>(random() % (n - at + 1));
    edit.end = std::min<int64_t>(n, edit.begin + static_cast<int64_t>(random() % 3 * (random() % 50)));
    edit.tokens = random_ids(random, static_cast<int64_t>(random() % 3 * (random() % 40)));
    at = edit.end;
    edits.push_back(std::move(edit));
  }
  return edits;
}

std::vector<float> plain_logits(const std::shared_ptr<const Model>& model, const SessionOptions& options,
                                const std::vector<int32_t>& ids) {
  Session session(model, test::runtime(), options);
  session.append(ids);
  return test::logits_of(session);
}

std::vector<int32_t> held_ids(const Session& session) {
  return session.sequence().ids().copy(0, session.sequence().tokens());
}

TEST(SessionEdit, OfOneLayerEqualsAFullReading) {
  std::mt19937 random(test::seed(0));
  const SessionOptions options{.cache = "f32", .layers = 1};
  for (int round = 0; round < 40; ++round) {
    std::vector<int32_t> ids = random_ids(random, 1 + static_cast<int64_t>(random() % 400));
    Session session(test::seedling(), test::runtime(), options);
    session.append(ids);
    for (int more = 0; more < 3; ++more) {
      const std::vector<TokenEdit> edits =
          random_edits(random, std::ssize(ids), 1 + static_cast<int>(random() % 3));
      const std::vector<int32_t> edited = applied(ids, edits);
      if (edited.empty()) continue;
      const EditReport report = session.edit(edits);
      ids = edited;
      ASSERT_EQ(held_ids(session), ids);
      ASSERT_EQ(report.kept + report.moved + report.read, std::ssize(ids));
      ASSERT_FALSE(session.logits().empty());
      ASSERT_LT(test::largest_difference(test::logits_of(session), plain_logits(test::seedling(), options, ids)),
                2e-4);
    }
  }
}

TEST(SessionEdit, ManySmallEditsDoNotDrift) {
  std::mt19937 random(test::seed(1));
  const SessionOptions options{.cache = "f32", .layers = 1};
  std::vector<int32_t> ids = random_ids(random, 300);
  Session session(test::seedling(), test::runtime(), options);
  session.append(ids);
  for (int round = 0; round < 1000; ++round) {
    const auto at = static_cast<int64_t>(random() % ids.size());
    const TokenEdit edit{at, std::min<int64_t>(at + static_cast<int64_t>(random() % 3), std::ssize(ids)),
                         random_ids(random, 1)};
    session.edit({&edit, 1});
    ids = applied(ids, {&edit, 1});
  }
  ASSERT_EQ(held_ids(session), ids);
  EXPECT_LT(test::largest_difference(test::logits_of(session), plain_logits(test::seedling(), options, ids)), 2e-4);
}

TEST(SessionEdit, ReadsFewTokens) {
  Session session(test::seedling(), test::runtime());
  const std::vector<int32_t> ids = test::tokens(1000);
  session.append(ids);
  const TokenEdit edit{300, 310, {5, 6, 7}};
  const EditReport report = session.edit({&edit, 1});
  EXPECT_EQ(report.kept, 300);
  EXPECT_EQ(report.read, 3 + 10 + 1);  // up to the page at 320, and the last token
  EXPECT_EQ(report.moved, 1000 - 320 - 1);
  EXPECT_EQ(session.length(), 993);
}

TEST(SessionEdit, ChangesNothingForTheSameTextAndContinuesAtTheEnd) {
  const std::vector<int32_t> ids = test::tokens(200), more = test::tokens(30, 5);
  Session session(test::seedling(), test::runtime()), other(test::seedling(), test::runtime());
  session.append(ids);
  other.append(ids);
  const TokenEdit same{50, 120, {ids.begin() + 50, ids.begin() + 120}};
  const EditReport report = session.edit({&same, 1});
  EXPECT_EQ(report.kept, 200);
  EXPECT_EQ(report.read, 0);
  EXPECT_TRUE(std::ranges::equal(session.logits(), other.logits()));
  const TokenEdit append{200, 200, more};
  session.edit({&append, 1});
  other.append(more);
  EXPECT_TRUE(std::ranges::equal(session.logits(), other.logits()));
}

TEST(SessionEdit, ExactHasTheBitsOfAPlainReadingForEveryArchitecture) {
  std::mt19937 random(test::seed(2));
  for (const char* name : test::tiny_goldens()) {
    const std::string path = test::golden(name) + ".gguf";
    FATHOM_NEEDS(path);
    SCOPED_TRACE(name);
    const auto model = Model::open(path);
    const SessionOptions options{.chunk = 64};
    for (int round = 0; round < 3; ++round) {
      const std::vector<int32_t> ids = random_ids(random, 200);
      const std::vector<TokenEdit> edits = random_edits(random, 200, 2);
      Session session(model, test::runtime(), options);
      session.append(ids);
      session.edit(edits, {.exact = true});
      const std::vector<int32_t> edited = applied(ids, edits);
      ASSERT_EQ(held_ids(session), edited);
      Session plain(model, test::runtime(), options);
      plain.append(edited);
      ASSERT_TRUE(std::ranges::equal(session.logits(), plain.logits()) || edited == ids);
    }
  }
}

TEST(SessionEdit, RecurrentModelsReadFromACheckpoint) {
  const std::string path = test::golden("tiny-mamba2-f16") + ".gguf";
  FATHOM_NEEDS(path);
  std::mt19937 random(test::seed(3));
  const std::vector<int32_t> ids = random_ids(random, 1000);
  Session session(Model::open(path), test::runtime(), {.chunk = 64});
  session.append(ids);
  const TokenEdit edit{900, 901, {7}};
  const EditReport report = session.edit({&edit, 1});
  EXPECT_EQ(report.moved, 0);
  EXPECT_LE(report.read, 300);
}

TEST(SessionEdit, BlendOfAllPagesEqualsAPlainReading) {
  std::mt19937 random(test::seed(4));
  const SessionOptions options{.cache = "f32"};
  const std::vector<int32_t> ids = random_ids(random, 700);
  const TokenEdit edit{130, 131, random_ids(random, 9)};
  const std::vector<float> plain = plain_logits(test::seedling(), options, applied(ids, {&edit, 1}));
  std::vector<double> differences;
  for (const double share : {0.0, 0.3, 1.0}) {
    Session session(test::seedling(), test::runtime(), options);
    session.append(ids);
    const EditReport report = session.edit({&edit, 1}, {.blend = share});
    EXPECT_EQ(report.measured > 0, share > 0);
    differences.push_back(test::largest_difference(test::logits_of(session), plain));
    if (share == 1) {
      EXPECT_EQ(report.moved, 0);
    } else if (share > 0) {
      EXPECT_NEAR(static_cast<double>(report.read), share * 570, 140);
    }
  }
  EXPECT_GT(differences[0], 1e-3);
  EXPECT_LT(differences[2], 2e-4);
}

TEST(SessionEdit, WorksWithEverySelectorAndAfterAnError) {
  std::mt19937 random(test::seed(5));
  for (const char* attend : {"window:sink=4,window=70", "quest:budget=128", "recycled:budget=128", "tokenselect",
                             "infllm:window=128,block=64", "shadowkv:budget=64", "squeezed", "hip"}) {
    SCOPED_TRACE(attend);
    Session session(test::seedling(), test::runtime(), {.context = 900, .attend = attend});
    const std::vector<int32_t> ids = random_ids(random, 800);
    session.append(ids);
    const std::vector<float> before = test::logits_of(session);
    const TokenEdit wrong{700, 801, {}}, unknown{10, 11, {1 << 30}}, large{10, 10, random_ids(random, 200)};
    for (const TokenEdit& edit : {wrong, unknown, large}) EXPECT_THROW(session.edit({&edit, 1}), Error);
    ASSERT_EQ(held_ids(session), ids);
    ASSERT_TRUE(std::ranges::equal(session.logits(), before));
    const TokenEdit edit{200, 230, random_ids(random, 40)};
    session.edit({&edit, 1});
    ASSERT_EQ(session.length(), 810);
    session.append(random_ids(random, 10));
    session.rewind(400);
    session.append(random_ids(random, 100));
    for (const float logit : session.logits()) ASSERT_TRUE(std::isfinite(logit));
  }
}

TEST(SessionEdit, NeedsAllTokens) {
  Session session(test::seedling(), test::runtime(), {.evict = "snapkv:budget=128"});
  session.append(test::tokens(300));
  const TokenEdit edit{100, 101, {7}};
  EXPECT_THROW(session.edit({&edit, 1}), Error);
  session.edit({&edit, 1}, {.exact = true});
  EXPECT_EQ(session.length(), 300);
  const TokenEdit all{0, 300, {}};
  EXPECT_THROW(session.edit({&all, 1}, {.exact = true}), Error);
}

}  // namespace
}  // namespace fathom
