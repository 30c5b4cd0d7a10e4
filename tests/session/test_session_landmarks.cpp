#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "base/error.h"
#include "models/reference_logits.h"
#include "models/tiny_model.h"
#include "seedling.h"
#include "session/session.h"

namespace fathom {
namespace {

using test::largest_difference;
using test::logits_of;
using test::runtime;
using test::steps;
using test::tokens;

constexpr int64_t kBlock = 50;
constexpr int32_t kLandmark = 0;
constexpr float kLandmarkRounding = 2e-3f;  // rounding of float32 sums in three layers
const Landmarks kLandmarks{kBlock};

std::shared_ptr<const Model> trained_with_landmarks() {
  static const auto model = [] {
    test::TinyFile file;
    file.extra = [](GgufWriter& writer) {
      writer.set("llama.attention.landmark_block", GgufType::kU32, uint64_t{kBlock});
      writer.set("llama.attention.landmark_token_id", GgufType::kU32, uint64_t{kLandmark});
    };
    return test::open_tiny(file);
  }();
  return model;
}

Session session(const std::string& attend = "dense", int64_t chunk = 512) {
  return Session(trained_with_landmarks(), runtime(), {.chunk = chunk, .attend = attend, .cache = "f32"});
}

std::vector<float> read(const std::vector<int32_t>& ids, const std::string& attend = "dense", int64_t chunk = 512) {
  Session one = session(attend, chunk);
  one.append(ids);
  return logits_of(one);
}

TEST(SessionLandmarks, FollowEveryBlockAndAreNotCounted) {
  Session one = session();
  for (const int64_t count : {49, 1, 1, 99, 150, 27}) {
    const int64_t before = one.length();
    one.append(tokens(count));
    EXPECT_EQ(one.length(), before + count);
    EXPECT_EQ(one.sequence().tokens(), kLandmarks.with(one.length()));
    EXPECT_EQ(one.sequence().next_position(), one.sequence().tokens());
    EXPECT_EQ(one.sequence().kv(0).table(0).size(), (one.sequence().tokens() + kBlock) / (kBlock + 1))
        << "one page per block";
  }
}

TEST(SessionLandmarks, FollowTheModelFile) {
  // A model without landmarks reads landmark tokens as ordinary tokens.
  const auto plain = test::open_tiny({});
  Session other(plain, runtime(), {.cache = "f32"});
  std::vector<int32_t> ids;
  const std::vector<int32_t> text = tokens(60);
  for (size_t i = 0; i < text.size(); ++i) {
    ids.push_back(text[i]);
    if (i == 49) ids.push_back(kLandmark);
  }
  other.append(ids);
  Session one = session();
  one.append(text);
  EXPECT_EQ(one.sequence().tokens(), other.sequence().tokens());
  EXPECT_GT(largest_difference(logits_of(one), logits_of(other)), 0.01) << "each block has its own softmax";
  // within the first block the models agree
  Session first(plain, runtime(), {.cache = "f32"});
  first.append(tokens(49));
  std::vector<float> expected = logits_of(first);
  expected[kLandmark] = *std::ranges::min_element(expected);
  EXPECT_LT(largest_difference(read(tokens(49)), expected), kLandmarkRounding);
}

TEST(SessionLandmarks, ChunksAndSingleTokensChangeResultsByRoundingOnly) {
  for (const int64_t length : {49, 50, 51, 175, 300}) {
    const std::vector<int32_t> prompt = tokens(length);
    const std::vector<float> whole = read(prompt);
    EXPECT_LT(largest_difference(whole, read(prompt, "dense", 7)), kLandmarkRounding) << length;
    Session one = session();
    steps(one, prompt);
    EXPECT_LT(largest_difference(whole, logits_of(one)), kLandmarkRounding) << length;
    EXPECT_GT(*std::ranges::max_element(whole), 0.1f);
  }
}

TEST(SessionLandmarks, HaveTheLowestLogit) {
  for (const int64_t length : {1, 49, 50, 51}) {
    const std::vector<float> logits = read(tokens(length));
    EXPECT_EQ(logits[kLandmark], *std::ranges::min_element(logits));
  }
}

TEST(SessionLandmarks, RowLogitsEqualReadingUpToTheRow) {
  const std::vector<int32_t> prompt = tokens(170);
  for (const int64_t chunk : {512, 50, 33}) {
    Session one(trained_with_landmarks(), std::make_shared<Runtime>(2), {.chunk = chunk, .cache = "f32"});
    std::vector<int64_t> visited;
    AppendOptions options;
    options.needs_logits = [](int64_t i) { return i % 7 == 0 || i % 50 >= 48; };
    options.on_logits = [&](int64_t i, std::span<const float> logits) {
      visited.push_back(i);
      const std::vector<float> expected = read({prompt.begin(), prompt.begin() + i + 1});
      EXPECT_LT(largest_difference(expected, {logits.begin(), logits.end()}), kLandmarkRounding) << i;
    };
    one.append(prompt, options);
    EXPECT_EQ(visited.size(), 29);
  }
}

TEST(SessionLandmarks, ForksAndRewindsEqualAFreshRead) {
  for (const char* attend : {"dense", "landmark:topk=2", "landmark:topk=1,positions=original"}) {
    for (const int64_t kept_tokens : {0, 1, 49, 50, 51, 99, 100, 125, 200}) {
      SCOPED_TRACE(testing::Message() << attend << ", " << kept_tokens << " tokens kept");
      const std::vector<int32_t> prompt = tokens(230), kept(prompt.begin(), prompt.begin() + kept_tokens),
                                 tail = tokens(120, 5);
      Session trunk = session(attend);
      trunk.append(prompt);
      Session fork = trunk.fork();
      fork.append(tokens(33, 3));
      fork.rewind(33 + 230 - kept_tokens);
      EXPECT_EQ(fork.length(), kept_tokens);
      EXPECT_EQ(fork.sequence().tokens(), kLandmarks.with(kept_tokens));
      fork.append(tail);
      Session alone = session(attend);
      if (kept_tokens > 0) alone.append(kept);
      alone.append(tail);
      // `kept` was read together with later tokens. With `landmark`, rows select blocks together, so results
      // differ.
      if (attend == std::string("dense")) {
        EXPECT_LT(largest_difference(logits_of(fork), logits_of(alone)), kLandmarkRounding);
      }
      trunk.rewind(230 - kept_tokens);
      trunk.append(tail);
      EXPECT_EQ(logits_of(trunk), logits_of(fork));
    }
  }
}

TEST(SessionLandmarks, BatchedStepsEqualSeparateSteps) {
  std::vector<Session> alone, together;
  for (const int64_t length : {30, 49, 50, 148, 199}) {
    Session one = session();
    one.append(tokens(length, 7));
    together.push_back(one.fork());
    alone.push_back(std::move(one));
  }
  for (int step = 0; step < 4; ++step) {
    std::vector<Session*> batch;
    std::vector<int32_t> next;
    for (size_t i = 0; i < together.size(); ++i) {
      batch.push_back(&together[i]);
      next.push_back(static_cast<int32_t>(300 + 31 * i + step));
      alone[i].append({&next[i], 1});
    }
    Session::step(batch, next);
    for (size_t i = 0; i < together.size(); ++i) {
      EXPECT_EQ(together[i].length(), alone[i].length());
      EXPECT_LT(largest_difference(logits_of(together[i]), logits_of(alone[i])), kLandmarkRounding)
          << i << " " << step;
    }
  }
}

TEST(SessionLandmarks, ATopkThatCoversAllBlocksEqualsDense) {
  const std::vector<int32_t> prompt = tokens(420), tail = tokens(120, 2);
  const auto run = [&](const std::string& attend) {
    Session one = session(attend);
    one.append(prompt);
    Session fork = one.fork();
    fork.append(tail);
    fork.rewind(300);
    fork.append(tail);
    steps(one, tail);
    std::vector<float> both = logits_of(one);
    both.insert(both.end(), fork.logits().begin(), fork.logits().end());
    return both;
  };
  const auto dense = run("dense");
  for (const char* attend : {"landmark:topk=11", "landmark:topk=100,positions=original"})
    EXPECT_EQ(run(attend), dense);
  const auto few = run("landmark:topk=3");
  EXPECT_NE(few, dense);
  EXPECT_GT(test::cosine(few, dense), 0.3);
}

TEST(SessionLandmarks, AForkWithLandmarkUsesTokensReadDensely) {
  Session dense = session();
  dense.append(tokens(420));
  Session late = dense.fork("landmark:topk=2"), twin = dense.fork("landmark:topk=2");
  steps(late, tokens(60, 4));
  late.rewind(60);
  steps(late, tokens(60, 4));
  steps(twin, tokens(60, 4));
  EXPECT_EQ(logits_of(late), logits_of(twin));
  steps(dense, tokens(60, 4));
  EXPECT_NE(logits_of(late), logits_of(dense));
}

TEST(SessionLandmarks, MovingAndMaskingKeepTheBlocks) {
  const std::vector<int32_t> prompt = tokens(150), tail = tokens(70, 5);
  for (const char* attend : {"dense", "landmark:topk=2", "landmark:topk=2,positions=original"}) {
    Session unmoved = session(attend), moved = session(attend);
    unmoved.append(prompt);
    moved.append(prompt);
    moved.move_to(1000);
    unmoved.append(tail);
    moved.append(tail);
    EXPECT_LT(largest_difference(logits_of(unmoved), logits_of(moved)), kLandmarkRounding) << attend;
  }
  Session some = session(), none = session();
  some.append(prompt);
  none.append(prompt);
  none.mask(0, 150);
  some.mask(50, 100);
  for (Session* one : {&some, &none}) one->append(tail);
  EXPECT_GT(largest_difference(logits_of(some), logits_of(none)), 1e-3);
  EXPECT_TRUE(std::isfinite(none.logits()[5]));
}

TEST(SessionLandmarks, FillRandomAddsLandmarks) {
  Session one = session("landmark:topk=2");
  one.fill_random(1000);
  EXPECT_EQ(one.length(), 1000);
  EXPECT_EQ(one.sequence().tokens(), 1020);
  one.append(tokens(60));
  EXPECT_EQ(one.length(), 1060);
}

void expect_usage(const std::function<void()>& action, const std::string& part) {
  try {
    action();
    FAIL() << part;
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Error::Kind::kUsage) << error.what();
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST(SessionLandmarks, RejectsUnsupportedOptions) {
  const auto open = [](const SessionOptions& options) { Session(trained_with_landmarks(), runtime(), options); };
  for (const char* attend : {"window:window=100", "layers:then=landmark,else=dense", "tempscale:tau=0.9"})
    expect_usage([&] { open({.attend = attend}); }, "expected dense or landmark");
  expect_usage([&] { open({.evict = "streaming"}); }, "expected none");
  expect_usage([] { Session(test::seedling(), runtime(), {.attend = "landmark"}); }, "trained with landmarks");
  expect_usage([] { session().fork("quest"); }, "expected dense or landmark");
  expect_usage(
      [] {
        const int64_t positions[] = {5};
        Session one = session();
        AppendOptions options;
        options.positions = positions;
        one.append(tokens(1), options);
      },
      "without explicit positions");
  struct Watcher final : AttentionWatcher {
    bool watches(int) const override { return true; }
    void observe(const AttendedBlock&) override {}
  } watcher;
  expect_usage([&] { session().watch(&watcher); }, "trained with landmarks");
}

TEST(SessionLandmarks, RejectsInconsistentFiles) {
  const auto error = [](std::initializer_list<std::pair<const char*, uint64_t>> keys) -> std::string {
    test::TinyFile file;
    file.extra = [&](GgufWriter& writer) {
      for (const auto& [key, value] : keys)
        writer.set(std::string("llama.attention.") + key, GgufType::kU32, value);
    };
    try {
      test::open_tiny(file);
    } catch (const Error& found) {
      return found.what();
    }
    return "";
  };
  EXPECT_EQ(error({{"landmark_block", 63}, {"landmark_token_id", 511}}), "");
  EXPECT_NE(error({{"landmark_block", 64}, {"landmark_token_id", 0}}).find("expected 0 to 63"), std::string::npos);
  EXPECT_NE(error({{"landmark_block", 50}, {"landmark_token_id", 512}}).find("expected 0 to 511"),
            std::string::npos);
  EXPECT_NE(error({{"landmark_block", 50}}).find("landmark_token_id"), std::string::npos);
  EXPECT_NE(error({{"landmark_block", 50}, {"landmark_token_id", 0}, {"sliding_window", 9}}).find("sliding window"),
            std::string::npos);
}

TEST(SessionLandmarks, AreNoPartOfTheIdsAndOfEdits) {
  const std::vector<int32_t> ids = tokens(180);
  Session one = session();
  one.append(ids);
  EXPECT_EQ(one.ids(), ids);
  const TokenEdit edit{120, 125, {7, 8}};
  one.edit({&edit, 1});
  std::vector<int32_t> edited(ids.begin(), ids.begin() + 120);
  edited.insert(edited.end(), {7, 8});
  edited.insert(edited.end(), ids.begin() + 125, ids.end());
  EXPECT_EQ(one.ids(), edited);
  EXPECT_EQ(logits_of(one), read(edited));
}

}  // namespace
}  // namespace fathom
