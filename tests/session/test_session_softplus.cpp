// Models trained with softplus attention: read at once, in chunks, token by token, forked and rewound.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "base/error.h"
#include "models/model_metadata.h"
#include "models/tiny_model.h"
#include "seedling.h"

namespace fathom {
namespace {

using test::largest_difference;
using test::logits_of;
using test::runtime;
using test::steps;
using test::tokens;

std::shared_ptr<const Model> softplus_model(double power, bool softplus = true) {
  test::TinyFile file;
  file.extra = [=](GgufWriter& writer) {
    writer.set(std::string("llama.") + kSoftplusKey, GgufType::kBool, softplus);
    writer.set(std::string("llama.") + kSoftplusPowerKey, GgufType::kF32, power);
  };
  return test::open_tiny(file);
}

std::shared_ptr<const Model> cubed() {
  static const auto model = softplus_model(3);
  return model;
}

std::vector<float> read(const std::shared_ptr<const Model>& model, const std::vector<int32_t>& ids,
                        const SessionOptions& options) {
  Session session(model, runtime(), options);
  session.append(ids);
  return logits_of(session);
}

/// Returns the message of the Error that `action` throws; empty: none.
std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(SessionSoftplus, ChunksAndSingleTokensChangeResultsByRoundingOnly) {
  const std::vector<int32_t> prompt = tokens(300);
  for (const double power : {0.0, 3.0, 15.0}) {
    const auto model = softplus_model(power);
    const std::vector<float> whole = read(model, prompt, {.cache = "f32"});
    EXPECT_LE(largest_difference(whole, read(model, prompt, {.chunk = 7, .cache = "f32"})), 2e-3) << power;
    EXPECT_LE(largest_difference(whole, read(model, prompt, {.chunk = 1, .cache = "f32"})), 2e-3) << power;
    EXPECT_TRUE(std::isfinite(whole[0]));
  }
}

TEST(SessionSoftplus, PageFormatsStayCloseToFloats) {
  const std::vector<int32_t> prompt = tokens(200);
  const std::vector<float> floats = read(softplus_model(0), prompt, {.cache = "f32"});
  for (const auto& [cache, most] : {std::pair{"bf16", 0.2f}, {"q8", 0.4f}}) {
    const float difference = largest_difference(floats, read(softplus_model(0), prompt, {.cache = cache}));
    EXPECT_LT(difference, most) << cache;
    EXPECT_GT(difference, 0) << cache;
  }
}

TEST(SessionSoftplus, TheFlagOverridesTheFormOfTheFile) {
  const std::vector<int32_t> prompt = tokens(120);
  const auto logits = [&](const std::string& attend) { return read(cubed(), prompt, {.attend = attend}); };
  const std::vector<float> own = logits("dense");
  for (const char* same : {"softplus:power=3", "softplus:power=3,then=(window:window=1k)", "tempscale:tau=1",
                           "layers:full=1,then=(softplus:power=3),else=dense"}) {
    EXPECT_EQ(logits(same), own) << same;
  }
  for (const char* other : {"softplus", "softplus:power=0", "softplus:power=3,offset=0.5", "window:window=20"})
    EXPECT_GT(largest_difference(logits(other), own), 1e-2) << other;
  EXPECT_EQ(logits("softplus:power=0"), read(softplus_model(0), prompt, {}));
  EXPECT_GT(largest_difference(read(test::open_tiny({}), prompt, {}), read(softplus_model(0), prompt, {})), 1e-2);
}

TEST(SessionSoftplus, SelectorsWhoseBudgetCoversTheLengthEqualDense) {
  const std::vector<int32_t> prompt = tokens(500), tail = tokens(20, 2), other = tokens(300, 3);
  const auto run = [&](const std::string& attend) {
    Session session(cubed(), runtime(), {.attend = attend});
    session.append(prompt);
    Session fork = session.fork();
    fork.append(other);
    fork.rewind(400);  // ends inside shared pages
    fork.append(other);
    steps(session, tail);
    return std::pair{logits_of(session), logits_of(fork)};
  };
  const auto dense = run("dense");
  for (const char* attend :
       {"softplus:power=3,then=(quest:budget=100k,dense_layers=0)",
        "softplus:power=3,then=(tokenselect:budget=100k)", "recycled:budget=100k", "quest:budget=100k"})
    EXPECT_EQ(run(attend), dense) << attend;
}

TEST(SessionSoftplus, ForksAndRewindsEqualAFreshRead) {
  const std::vector<int32_t> prompt = tokens(200), tail = tokens(30, 2);
  for (const char* attend : {"dense", "softplus:power=15"}) {
    Session trunk(cubed(), runtime(), {.attend = attend});
    trunk.append(prompt);
    Session fork = trunk.fork();
    fork.append(tokens(100, 4));
    fork.rewind(100);
    fork.append(tail);
    Session alone(cubed(), runtime(), {.attend = attend});
    alone.append(prompt);
    alone.append(tail);
    EXPECT_EQ(logits_of(fork), logits_of(alone)) << attend;
  }
}

TEST(SessionSoftplus, SplittingPagesOfLongSequencesDoesNotChangeResults) {
  // With 2,200 tokens, attention of a single row splits its pages into parts; attention of 21 rows does not.
  std::vector<int32_t> prompt = tokens(2200);
  Session split(cubed(), runtime(), {.cache = "f32"}), unsplit(cubed(), runtime(), {.cache = "f32"});
  split.append(prompt);
  unsplit.append(std::vector(prompt.begin(), prompt.end() - 20));
  unsplit.append(std::vector(prompt.end() - 20, prompt.end()));
  const int32_t next = 17;
  split.append({&next, 1});
  prompt.push_back(next);
  unsplit.rewind(20);
  unsplit.append(std::vector(prompt.end() - 21, prompt.end()));
  EXPECT_LE(largest_difference(logits_of(split), logits_of(unsplit)), 2e-3);
}

TEST(SessionSoftplus, IsRejectedByModelsTrainedWithSoftmax) {
  const auto plain = test::open_tiny({});
  EXPECT_NE(
      error_of([&] { Session(plain, runtime(), {.attend = "softplus:power=3"}); }).find("trained with softmax"),
      std::string::npos);
  Session session(plain, runtime());
  session.append(tokens(20));
  EXPECT_NE(error_of([&] { session.fork("layers:full=0,then=softplus"); }).find("trained with softmax"),
            std::string::npos);
}

TEST(SessionSoftplus, RejectsInconsistentFiles) {
  EXPECT_NE(error_of([] { softplus_model(3, false); }).find("attention.softplus is not set"), std::string::npos);
  EXPECT_NE(error_of([] { softplus_model(-1); }).find("expected 0 to 100"), std::string::npos);
  EXPECT_NE(error_of([] { softplus_model(NAN); }).find("expected 0 to 100"), std::string::npos);
  EXPECT_FALSE(softplus_model(0, false)->config().softplus);
}

}  // namespace
}  // namespace fathom
