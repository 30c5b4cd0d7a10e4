// Properties of sessions with attention, recurrent and hybrid models: forks, rewinds, batches and threads give
// bit-identical results; the split of a text into calls changes only the rounding of matrix products.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <random>

#include "models/tiny_model.h"
#include "seed.h"
#include "session/session.h"
#include "shared_data.h"

namespace fathom {
namespace {

struct LawCase {
  const char* model;
  const char* cache;
};

std::shared_ptr<const Model> open_model(const std::string& name) {
  return name == "random-floats" ? test::floats() : Model::open(test::golden(name) + ".gguf");
}

class SessionLaws : public testing::TestWithParam<LawCase> {
 protected:
  void SetUp() override {
    const std::string name = GetParam().model;
    if (name != "random-floats") FATHOM_NEEDS(test::golden(name) + ".gguf");
    model_ = open_model(name);
    random_.seed(test::seed(0));
    tokens_ = text(500);
  }
  std::vector<int32_t> text(int64_t n) {
    std::vector<int32_t> tokens(n);
    for (int32_t& token : tokens)
      token = static_cast<int32_t>(random_() % static_cast<uint64_t>(model_->config().vocabulary));
    return tokens;
  }
  Session session(int threads = 2) const {
    return Session(model_, threads == 2 ? runtime_ : std::make_shared<Runtime>(threads),
                   {.cache = GetParam().cache});
  }
  /// Appends tokens in random parts of at least `least` tokens.
  void read_in_parts(Session& session, std::span<const int32_t> tokens, int64_t least) {
    while (!tokens.empty()) {
      int64_t count = std::min<int64_t>(std::ssize(tokens), least + static_cast<int64_t>(random_() % 150));
      if (std::ssize(tokens) - count < least) count = std::ssize(tokens);
      session.append(tokens.first(count));
      tokens = tokens.subspan(count);
    }
  }
  static std::vector<float> logits(const Session& session) {
    return {session.logits().begin(), session.logits().end()};
  }

  std::mt19937 random_;
  std::shared_ptr<const Model> model_;
  std::shared_ptr<Runtime> runtime_ = std::make_shared<Runtime>(2);
  std::vector<int32_t> tokens_;
};

TEST_P(SessionLaws, SplitsChangeOnlyRounding) {
  Session whole = session();
  whole.append(tokens_);
  const double tolerance = std::string(GetParam().cache) == "f32" ? 1e-3 : 0.06;
  for (const int64_t least : {1, 17, 100}) {
    Session parts = session();
    read_in_parts(parts, std::span(tokens_).first(200), least);
    for (const int32_t token : std::span(tokens_).subspan(200, 30)) parts.append({&token, 1});
    read_in_parts(parts, std::span(tokens_).subspan(230), least);
    for (size_t v = 0; v < parts.logits().size(); ++v)
      ASSERT_NEAR(parts.logits()[v], whole.logits()[v], tolerance * (1 + std::fabs(whole.logits()[v])));
  }
}

TEST_P(SessionLaws, ForksAreIndependentAndBitIdentical) {
  Session trunk = session();
  trunk.append(std::span(tokens_).first(300));
  Session straight = session();
  straight.append(std::span(tokens_).first(300));
  Session fork = trunk.fork();
  fork.append(text(90));
  fork.rewind(20);
  straight.append(std::span(tokens_).subspan(300));
  trunk.append(std::span(tokens_).subspan(300));
  EXPECT_EQ(logits(trunk), logits(straight));
  Session copy = straight.fork();
  const int32_t next = tokens_[7];
  copy.append({&next, 1});
  straight.append({&next, 1});
  EXPECT_EQ(logits(copy), logits(straight));
}

TEST_P(SessionLaws, RewindsEqualAFreshReadWithTheSameChunks) {
  for (const int64_t n : {1, 5, 64, 65, 130, 300, 500}) {
    SCOPED_TRACE(n);
    Session rewound = session();
    rewound.append(tokens_);
    const int64_t kept = std::ssize(tokens_) - n, floor = rewound.sequence().floor(kept);
    EXPECT_LE(kept - floor, std::max<int64_t>(64, n)) << "tokens read again";
    rewound.rewind(n);
    ASSERT_EQ(rewound.length(), kept);
    Session fresh = session();
    if (floor > 0) fresh.append(std::span(tokens_).first(floor));
    if (kept > floor) fresh.append(std::span(tokens_).subspan(floor, kept - floor));
    const std::vector<int32_t> next = text(40);
    rewound.append(next);
    fresh.append(next);
    ASSERT_EQ(logits(rewound), logits(fresh));
  }
}

TEST_P(SessionLaws, BatchesAndThreadsDoNotChangeResults) {
  std::vector<std::vector<float>> found;
  for (const int threads : {1, 2, 3}) {
    Session one = session(threads);
    one.append(tokens_);
    const int32_t next = 5;
    one.append({&next, 1});
    found.push_back(logits(one));
  }
  EXPECT_EQ(found[0], found[1]);
  EXPECT_EQ(found[0], found[2]);
  std::vector<Session> others;
  for (int64_t i = 0; i < 5; ++i) {
    others.push_back(session());
    others.back().append(std::span(tokens_).first(20 + 90 * i));
  }
  others.push_back(session());
  others.back().append(tokens_);
  std::vector<Session*> batch;
  std::vector<Session> alone;
  for (Session& other : others) batch.push_back(&other), alone.push_back(other.fork());
  const std::vector<int32_t> next(6, 5);
  Session::step(batch, next);
  for (size_t i = 0; i < alone.size(); ++i) {
    alone[i].append(std::span(next).first(1));
    EXPECT_EQ(logits(*batch[i]), logits(alone[i])) << i;
  }
  EXPECT_EQ(logits(*batch[5]), found[1]);
}

constexpr LawCase kLawCases[] = {{"random-floats", "f32"},
                                 {"random-floats", "bf16"},
                                 {"tiny-llama-q4_k_m", "bf16"},
                                 {"architectures/tiny-gemma3-f16", "f32"},
                                 {"architectures/tiny-gemma3-f16", "bf16"},
                                 {"architectures/tiny-qwen3moe-f16", "f32"},
                                 {"architectures/tiny-gpt-oss-f16", "bf16"},
                                 {"architectures/tiny-mamba-f16", "f32"},
                                 {"architectures/tiny-mamba2-f16", "f32"},
                                 {"architectures/tiny-falcon-h1-f16", "f32"},
                                 {"architectures/tiny-falcon-h1-f16", "bf16"}};

INSTANTIATE_TEST_SUITE_P(Models, SessionLaws, testing::ValuesIn(kLawCases), [](const auto& param) {
  std::string name = std::string(param.param.model) + "_" + param.param.cache;
  std::ranges::replace_if(
      name, [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); }, '_');
  return name;
});

}  // namespace
}  // namespace fathom
