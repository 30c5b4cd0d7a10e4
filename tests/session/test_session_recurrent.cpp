// Sessions of models with recurrent layers: rewinds, drafts that are accepted in part, batches and methods.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "attend/methods.h"
#include "evict/methods.h"
#include "seed.h"
#include "session/session.h"
#include "shared_data.h"

namespace fathom {
namespace {

class RecurrentSession : public testing::TestWithParam<const char*> {
 protected:
  static std::string path() { return test::golden("architectures/tiny-" + std::string(GetParam()) + "-f16.gguf"); }
  /// Loads the model.
  void load() {
    engine_ = std::make_shared<Engine>(Model::open(path()), std::make_shared<Runtime>(2));
    random_.seed(test::seed(0));
  }
  Session new_session(int64_t chunk) const {
    SessionOptions options;
    options.cache = "f32";
    options.chunk = chunk;
    return Session(engine_, options);
  }
  std::vector<int32_t> tokens(int64_t n) {
    std::vector<int32_t> ids(n);
    for (int32_t& id : ids) id = static_cast<int32_t>(random_() % engine_->model().config().vocabulary);
    return ids;
  }
  bool has_attention() const {
    const std::vector<AttendLayer> layers = engine_->model().network().attention();
    return std::ranges::any_of(layers, [](const AttendLayer& layer) { return layer.heads > 0; });
  }
  static std::vector<float> logits(const Session& session) {
    return {session.logits().begin(), session.logits().end()};
  }
  static void expect_near(std::span<const float> a, std::span<const float> b, bool exact) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], exact ? 0 : 1e-4f) << "token " << i;
  }
  /// Appends ids [begin, end), if there are any.
  static void read(Session& session, const std::vector<int32_t>& ids, int64_t begin, int64_t end) {
    if (begin < end) session.append(std::span(ids).subspan(begin, end - begin));
  }

  std::shared_ptr<Engine> engine_;
  std::mt19937 random_;
};

TEST_P(RecurrentSession, RewindsRereadFewTokensAndAreExact) {
  FATHOM_NEEDS(path());
  load();
  for (const auto& [chunk, length] : {std::pair{512, 5000}, {333, 2000}, {1, 700}}) {
    const std::vector<int32_t> ids = tokens(length), next = tokens(20);
    Session whole = new_session(chunk);
    whole.append(ids);
    for (const int64_t n : {1, 5, 64, 65, 200, 1000, 4000}) {
      if (n > length) continue;
      SCOPED_TRACE(testing::Message() << "chunks of " << chunk << ", rewound by " << n);
      Session rewound = whole.fork();
      const int64_t kept = length - n, floor = rewound.sequence().floor(kept);
      EXPECT_LE(kept - floor, std::max<int64_t>(64, n));
      rewound.rewind(n);
      EXPECT_EQ(rewound.length(), kept);
      rewound.append(next);

      Session plain = new_session(chunk);
      read(plain, ids, 0, floor);
      read(plain, ids, floor, kept);
      plain.append(next);
      EXPECT_EQ(logits(rewound), logits(plain));
    }
  }
}

TEST_P(RecurrentSession, AcceptedTokensEqualTokensReadOneByOne) {
  FATHOM_NEEDS(path());
  load();
  constexpr int kNodes = 7;
  const std::vector<int32_t> ids = tokens(90), draft = tokens(kNodes), next = tokens(30);
  Session before = new_session(512);
  before.append(ids);
  // Attention over several rows rounds differently from attention over one row; recurrences do not.
  const bool exact = !has_attention();
  for (int accepted = 0; accepted <= kNodes; ++accepted) {
    SCOPED_TRACE(testing::Message() << accepted << " tokens accepted");
    Session drafted = before.fork(), plain = before.fork();
    const std::span<const float> logits = drafted.draft(DraftTree::chain(kNodes), draft);
    const std::vector<float> of_nodes(logits.begin(), logits.end());
    std::vector<int> path(accepted);
    std::iota(path.begin(), path.end(), 0);
    drafted.accept(path);
    const int64_t vocabulary = engine_->model().config().vocabulary;
    for (int i = 0; i < accepted; ++i) {
      plain.append(std::span(draft).subspan(i, 1));
      const auto row = std::span(of_nodes).subspan(i * vocabulary, vocabulary);
      expect_near(row, plain.logits(), exact);
    }
    EXPECT_EQ(drafted.length(), plain.length());
    for (const int32_t token : next) {
      drafted.append({&token, 1});
      plain.append({&token, 1});
      expect_near(drafted.logits(), plain.logits(), exact);
    }
  }
}

TEST_P(RecurrentSession, RejectsADraftWithBranches) {
  FATHOM_NEEDS(path());
  load();
  const std::vector<int32_t> ids = tokens(10), two = tokens(2);
  Session session = new_session(512);
  session.append(ids);
  DraftTree tree;
  tree.add(-1);
  tree.add(-1);
  EXPECT_THROW(session.draft(tree, two), Error);
  EXPECT_EQ(session.length(), 10);
  EXPECT_NO_THROW(session.append(two));
}

TEST_P(RecurrentSession, BatchedStepsEqualSeparateSteps) {
  FATHOM_NEEDS(path());
  load();
  const std::vector<int32_t> first = tokens(70), second = tokens(33), next = tokens(20);
  Session a = new_session(512), b = new_session(512);
  a.append(first);
  b.append(second);
  Session a_alone = a.fork(), b_alone = b.fork();
  for (size_t i = 0; i + 1 < next.size(); ++i) {
    Session* const both[] = {&a, &b};
    Session::step(both, std::span(next).subspan(i, 2));
    a_alone.append(std::span(next).subspan(i, 1));
    b_alone.append(std::span(next).subspan(i + 1, 1));
    EXPECT_EQ(logits(a), logits(a_alone));
    EXPECT_EQ(logits(b), logits(b_alone));
  }
}

TEST_P(RecurrentSession, AttentionMethodsChangeNothingWithoutAttention) {
  FATHOM_NEEDS(path());
  load();
  const std::vector<int32_t> ids = tokens(300), next = tokens(3);
  const auto read_under = [&](const std::string& attend, const std::string& evict) {
    SessionOptions options;
    options.attend = attend;
    options.evict = evict;
    options.chunk = 100;
    Session session(engine_, options);
    session.append(ids);
    for (const int32_t token : next) session.append({&token, 1});
    return logits(session);
  };
  const std::vector<float> plain = read_under("dense", "none");
  const auto expect_plain = [&](const std::vector<float>& found) {
    for (const float v : found) ASSERT_TRUE(std::isfinite(v));
    EXPECT_TRUE(has_attention() || found == plain);
  };
  for (const std::string& method : attend_methods().names_with(&Capabilities::works_on_recurrent)) {
    if (method == "softplus") continue;  // only for models that were trained with it
    SCOPED_TRACE("--attend " + method);
    expect_plain(read_under(method, "none"));
  }
  for (const std::string& method : evict_methods().names_with(&Capabilities::works_on_recurrent)) {
    SCOPED_TRACE("--evict " + method);
    expect_plain(read_under("dense", method));
  }
}

TEST_P(RecurrentSession, RejectsUnsupportedMethods) {
  FATHOM_NEEDS(path());
  load();
  for (const auto& entry : attend_methods().entries()) {
    if (entry.info.capabilities.works_on_recurrent) continue;
    SessionOptions options;
    options.attend = entry.info.name;
    EXPECT_THROW(Session(engine_, options), Error) << entry.info.name;
  }
}

TEST_P(RecurrentSession, ContinuesFromRandomStates) {
  FATHOM_NEEDS(path());
  load();
  const std::vector<int32_t> next = tokens(10);
  Session session = new_session(512);
  session.fill_random(3000);
  session.append(next);
  EXPECT_EQ(session.length(), 3010);
  for (const float v : session.logits()) ASSERT_TRUE(std::isfinite(v));
}

INSTANTIATE_TEST_SUITE_P(Models, RecurrentSession, testing::Values("mamba", "mamba2", "falcon-h1"),
                         [](const auto& name) {
                           std::string text = name.param;
                           std::ranges::replace(text, '-', '_');
                           return text;
                         });

}  // namespace
}  // namespace fathom
