// Session::join: contexts that were read alone, joined in several ways.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "base/error.h"
#include "models/plain_llama.h"
#include "models/tiny_model.h"
#include "seed.h"
#include "seedling.h"

namespace fathom {
namespace {

/// Contexts with a common prefix, read alone.
struct Parts {
  Parts(const std::shared_ptr<Engine>& engine, SessionOptions options, int64_t prefix, std::vector<int64_t> lengths,
        uint32_t seed) {
    for (size_t i = 0; i < lengths.size(); ++i) {
      std::vector<int32_t> ids = test::tokens(prefix, seed);
      const std::vector<int32_t> own = test::tokens(lengths[i], seed + 17 * static_cast<uint32_t>(i + 1));
      ids.insert(ids.end(), own.begin(), own.end());
      ids[prefix] = static_cast<int32_t>(10 + i);  // ends the common prefix
      texts.push_back(ids);
      sessions.emplace_back(engine, options).append(ids);
    }
  }
  std::vector<const Session*> order(std::vector<int> numbers) const {
    std::vector<const Session*> list;
    for (const int number : numbers) list.push_back(&sessions[number]);
    return list;
  }
  std::vector<std::vector<int32_t>> texts;
  std::vector<Session> sessions;
};

std::vector<float> logits_after(Session& session, const std::vector<int32_t>& question) {
  session.append(question);
  return test::logits_of(session);
}

std::shared_ptr<Engine> engine_of(std::shared_ptr<const Model> model) {
  return std::make_shared<Engine>(std::move(model), test::runtime());
}

/// Computes the logits after a question that sees a prefix and several parts, with the positions of each part.
std::vector<double> plain_logits_of(const Parts& parts, int64_t prefix, bool one_after_the_other,
                                    const std::vector<int32_t>& question) {
  std::vector<test::PlainRow> rows;
  std::vector<int> visible;
  int64_t next = prefix, longest = 0;
  for (int64_t i = 0; i < prefix; ++i) {
    rows.push_back({.token = parts.texts[0][i], .position = i, .visible = visible});
    visible.push_back(static_cast<int>(i));
  }
  const std::vector<int> of_prefix = visible;
  for (const std::vector<int32_t>& text : parts.texts) {
    std::vector<int> own = of_prefix;
    for (int64_t i = prefix; i < std::ssize(text); ++i) {
      // read alone at positions from `prefix` on: only the distances inside a part matter for its keys and values
      rows.push_back({.token = text[i], .position = i, .visible = own});
      own.push_back(static_cast<int>(rows.size()) - 1);
      visible.push_back(static_cast<int>(rows.size()) - 1);
    }
    longest = std::max(longest, std::ssize(text) - prefix);
    next += std::ssize(text) - prefix;
  }
  int64_t position = one_after_the_other ? next : prefix + longest;
  for (const int32_t token : question) {
    rows.push_back({.token = token, .position = position++, .visible = visible});
    visible.push_back(static_cast<int>(rows.size()) - 1);
  }
  return test::PlainLlama(*test::floats()->file()).run(rows).logits.back();
}

TEST(SessionJoin, SetEqualsAPlainComputation) {
  const auto engine = engine_of(test::floats());
  for (const int64_t prefix : {0, 1, 70}) {
    const Parts parts(engine, {.cache = "f32"}, prefix, {30, 64, 9, 100}, test::seed(0) + 1);
    Session joined = Session::join(parts.order({2, 0, 3, 1}), {.order = JoinOrder::kSet});
    const std::vector<int32_t> question = test::tokens(12, 9);
    const std::vector<float> found = logits_after(joined, question);
    const std::vector<double> expected = plain_logits_of(parts, prefix, false, question);
    ASSERT_EQ(found.size(), expected.size());
    for (size_t i = 0; i < found.size(); ++i) ASSERT_NEAR(found[i], expected[i], 2e-4) << prefix << ", token " << i;
  }
}

TEST(SessionJoin, SetDoesNotDependOnTheOrder) {
  const auto engine = engine_of(test::seedling());
  for (const std::string cache : {"f32", "bf16", "q8", "q4"}) {
    const Parts parts(engine, {.cache = cache}, 1, {40, 90, 90, 17}, test::seed(1) + 1);
    std::vector<int> numbers{0, 1, 2, 3};
    std::vector<float> first;
    do {
      Session joined = Session::join(parts.order(numbers), {.order = JoinOrder::kSet});
      const std::vector<float> logits = logits_after(joined, test::tokens(5, 3));
      if (first.empty()) first = logits;
      ASSERT_EQ(first, logits) << cache;
    } while (std::ranges::next_permutation(numbers).found);
  }
}

TEST(SessionJoin, ApeCorrectsASetAndDoesNotDependOnTheOrder) {
  const auto engine = engine_of(test::seedling());
  const Parts parts(engine, {}, 1, {40, 90, 130}, test::seed(7) + 1);
  const auto logits_of = [&](const std::vector<int>& order, const JoinOptions& options) {
    Session joined = Session::join(parts.order(order), options);
    Session forked = joined.fork();
    const std::vector<float> logits = logits_after(joined, test::tokens(9, 3));
    for (const int32_t token : test::tokens(9, 3)) forked.append({&token, 1});
    EXPECT_LT(test::largest_difference(logits, test::logits_of(forked)), 0.2);  // bfloat16 pages
    return logits;
  };
  const JoinOptions ape{.order = JoinOrder::kApe, .temperature = 0.8f, .scale = 0.9f};
  const std::vector<float> set = logits_of({0, 1, 2}, {.order = JoinOrder::kSet});
  EXPECT_EQ(logits_of({0, 1, 2}, {.order = JoinOrder::kApe}), set);
  EXPECT_EQ(logits_of({0, 1, 2}, ape), logits_of({2, 0, 1}, ape));
  EXPECT_GT(test::largest_difference(logits_of({0, 1, 2}, ape), set), 0.01);
}

TEST(SessionJoin, OneContextEqualsAPlainReading) {
  const auto engine = engine_of(test::seedling());
  const Parts parts(engine, {}, 1, {80}, test::seed(2) + 1);
  std::vector<int32_t> all = parts.texts[0];
  const std::vector<int32_t> question = test::tokens(7, 3);
  Session plain(engine);
  plain.append(all);
  const std::vector<float> expected = logits_after(plain, question);
  for (const JoinOrder order : {JoinOrder::kSet, JoinOrder::kConcat}) {
    Session joined = Session::join(parts.order({0}), {.order = order});
    EXPECT_EQ(logits_after(joined, question), expected);
  }
}

TEST(SessionJoin, ConcatOfOneLayerEqualsAPlainReadingOfAllTexts) {
  const auto engine = engine_of(test::seedling());
  const SessionOptions options{.cache = "f32", .layers = 1};
  for (const int64_t reread : {0, 1, 70, 1000}) {
    const Parts parts(engine, options, 3, {100, 64, 31}, test::seed(3) + 1);
    std::vector<int32_t> all = parts.texts[0];
    for (const size_t i : {1, 2}) all.insert(all.end(), parts.texts[i].begin() + 3, parts.texts[i].end());
    const std::vector<int32_t> question = test::tokens(7, 3);
    Session plain(engine, options), joined = Session::join(parts.order({0, 1, 2}), {.reread = reread});
    plain.append(all);
    EXPECT_EQ(joined.sequence().next_position(), std::ssize(all));
    EXPECT_LT(test::largest_difference(logits_after(joined, question), logits_after(plain, question)), 2e-4)
        << reread;
  }
}

TEST(SessionJoin, ConcatThatReadsAllAgainEqualsAPlainReading) {
  const auto engine = engine_of(test::floats());
  const SessionOptions options{.cache = "f32"};
  const Parts parts(engine, options, 1, {50, 64, 31}, test::seed(4) + 1);
  std::vector<int32_t> all = parts.texts[0];
  for (const size_t i : {1, 2}) all.insert(all.end(), parts.texts[i].begin() + 1, parts.texts[i].end());
  Session plain(engine, options), joined = Session::join(parts.order({0, 1, 2}), {.reread = 1000});
  plain.append(all);
  const std::vector<int32_t> question = test::tokens(7, 3);
  EXPECT_LT(test::largest_difference(logits_after(joined, question), logits_after(plain, question)), 2e-4);
}

TEST(SessionJoin, LeavesItsPartsUnchangedAndWorksWithSelectors) {
  const auto engine = engine_of(test::seedling());
  for (const char* attend : {"dense", "quest:budget=128", "infllm:window=128,block=64", "tokenselect:budget=64"}) {
    SCOPED_TRACE(attend);
    Parts parts(engine, {.attend = attend}, 1, {400, 500}, test::seed(5) + 1);
    const std::vector<float> before = test::logits_of(parts.sessions[0]);
    for (const JoinOrder order : {JoinOrder::kSet, JoinOrder::kConcat}) {
      Session joined = Session::join(parts.order({0, 1}), {.order = order});
      EXPECT_TRUE(joined.logits().empty());
      joined.append(test::tokens(200, 3));
      joined.rewind(150);
      joined.append(test::tokens(20, 3));
      for (const float logit : joined.logits()) ASSERT_TRUE(std::isfinite(logit));
    }
    EXPECT_EQ(test::logits_of(parts.sessions[0]), before);
    EXPECT_EQ(parts.sessions[1].length(), 501);
  }
}

TEST(SessionJoin, ErrorsSayWhatDiffers) {
  const auto engine = engine_of(test::seedling());
  Session a(engine), b(engine, {.cache = "q8"}), c(engine_of(test::seedling())), empty(engine);
  for (Session* session : {&a, &b, &c}) session->append(test::tokens(20));
  for (const Session* other : {&b, &c, &empty}) {
    const Session* parts[] = {&a, other};
    EXPECT_THROW(Session::join(parts), Error);
  }
  EXPECT_THROW(Session::join({}), Error);
}

}  // namespace
}  // namespace fathom
