// Drafts of a trained layer that reads the model's last layer: its logits equal a plain recomputation.
#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "decode/drafter.h"
#include "decode/drafts/long_drafter.h"
#include "draft_files.h"
#include "models/plain_llama.h"
#include "paths.h"
#include "seed.h"
#include "shared_data.h"

namespace fathom {
namespace {

Session longspec_session(const std::shared_ptr<const Model>& model, const std::vector<int32_t>& prompt,
                         const std::string& attend = "dense", const std::string& cache = "f32") {
  Session session(model, test::draft_runtime(), {.attend = attend, .cache = cache});
  session.append(prompt);
  return session;
}

test::TrainedDraft trained(const Model& model, int window = 512) {
  return test::random_longspec(model.config(), model.network().attention().back(), window);
}

std::unique_ptr<DraftSource> longspec_source(const std::string& file, Session& session,
                                             const std::string& more = "") {
  return draft_methods().make(
      "longspec:file=" + file + more,
      DraftSetup{.model = session.engine().shared_model(), .runtime = test::draft_runtime(), .session = &session});
}

LongDrafter drafter_of(const std::vector<std::byte>& bytes, Session& session) {
  return {DraftFile::from(Gguf::parse(bytes, "longspec"), "longspec", session.model()), session};
}

/// The logits after a token by the formulas of the drafter. path: the tokens of the text up to this token; text:
/// how many of them the model has read; last: the model's last layer.
class PlainDrafter {
 public:
  PlainDrafter(const test::TrainedDraft& draft, const Model& model, std::span<const int32_t> text)
      : d_(draft), model_(*model.file()) {
    std::vector<test::PlainRow> rows;
    for (int i = 0; i < std::ssize(text); ++i) {
      rows.push_back({.token = text[i], .position = i});
      for (int before = 0; before < i; ++before) rows.back().visible.push_back(before);
    }
    text_ = model_.run(rows);
  }

  test::Doubles logits(std::span<const int32_t> path) const {
    const int heads = static_cast<int>(d_.keys.at("draft.heads")),
              kv = static_cast<int>(d_.keys.at("draft.kv_heads")),
              dim = static_cast<int>(d_.keys.at("draft.head_dim"));
    const int64_t position = std::ssize(path) - 1,
                  first = std::max<int64_t>(0, position + 1 - d_.keys.at("draft.window"));
    test::Doubles x = model_.embedding(path.back());
    test::Doubles query = d_.product("attn_q.weight", norm("attn_norm", x));
    std::vector<test::Doubles> keys, values;
    for (int64_t i = first; i <= position; ++i) {
      const test::Doubles u = norm("attn_norm", model_.embedding(path[i]));
      keys.push_back(d_.product("attn_k.weight", u));
      values.push_back(d_.product("attn_v.weight", u));
      for (int h = 0; h < kv; ++h) test::plain_rotate(keys.back().data() + h * dim, dim, base(), i);
    }
    test::Doubles attended;
    for (int h = 0; h < heads; ++h) {
      test::plain_rotate(query.data() + h * dim, dim, base(), position);
      append(attended, attend(query, h, h / (heads / kv), keys, values, dim));
    }
    add(x, d_.product("attn_output.weight", attended));
    test::Doubles cross = d_.product("cross_q.weight", norm("cross_norm", x));
    attended.clear();
    for (int h = 0; h < 4; ++h) {
      test::plain_rotate(cross.data() + h * 16, 16, 10000, position);
      append(attended, attend(cross, h, h / 2, text_.keys[2], text_.values[2], 16));
    }
    add(x, d_.product("cross_output.weight", attended));
    const test::Doubles u = norm("ffn_norm", x);
    test::Doubles gate = d_.product("ffn_gate.weight", u);
    const test::Doubles up = d_.product("ffn_up.weight", u);
    for (size_t i = 0; i < gate.size(); ++i) gate[i] = test::plain_silu(gate[i]) * up[i];
    add(x, d_.product("ffn_down.weight", gate));
    return model_.output(norm("output_norm", x));
  }

 private:
  double base() const { return d_.numbers.at("draft.rope_base"); }
  test::Doubles norm(const std::string& name, const test::Doubles& x) const {
    return test::plain_rms_norm(x, d_.tensors.at(name + ".weight").values, d_.numbers.at("draft.norm_eps"));
  }
  static void add(test::Doubles& x, const test::Doubles& y) {
    for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
  }
  static void append(test::Doubles& x, const test::Doubles& y) { x.insert(x.end(), y.begin(), y.end()); }
  static test::Doubles attend(const test::Doubles& query, int head, int kv_head,
                              const std::vector<test::Doubles>& keys, const std::vector<test::Doubles>& values,
                              int dim) {
    std::vector<const double*> k, v;
    for (size_t i = 0; i < keys.size(); ++i) {
      k.push_back(keys[i].data() + kv_head * dim);
      v.push_back(values[i].data() + kv_head * dim);
    }
    return test::plain_attention(query.data() + head * dim, k, v, dim);
  }

  const test::TrainedDraft& d_;
  test::PlainLlama model_;
  test::PlainLlama::Result text_;
};

TEST(LongspecDraft, LogitsEqualAPlainRecomputation) {
  std::mt19937 random(test::seed(0));
  for (const int window : {1, 2, 7, 64, 512}) {
    for (const int length : {1, 5, 100}) {
      SCOPED_TRACE(testing::Message() << "window " << window << ", " << length << " tokens");
      std::vector<int32_t> text = test::random_tokens(random, length);
      const test::TrainedDraft draft = trained(*test::floats(), window);
      const std::vector<std::byte> bytes = draft.bytes();
      Session session = longspec_session(test::floats(), text);
      LongDrafter drafter = drafter_of(bytes, session);
      Draft tree;
      for (int i = 0; i < 12; ++i)
        tree.add(i < 3 ? -1 : static_cast<int>(random() % i), static_cast<int32_t>(random() % 512));
      for (int round = 0; round < 2; ++round) {  // the second one extends the window
        const auto pending = static_cast<int32_t>(random() % 512);
        const PlainDrafter plain(draft, *test::floats(), text);
        drafter.begin(text, pending);
        const auto expect = [&](const std::vector<int>& nodes) {
          const std::span<const float> found = drafter.logits(tree, nodes);
          for (size_t i = 0; i < nodes.size(); ++i) {
            std::vector<int32_t> path = text;
            path.push_back(pending);
            if (nodes[i] >= 0)
              for (const int node : tree.tree.path(nodes[i])) path.push_back(tree.tokens[node]);
            ASSERT_NO_FATAL_FAILURE(test::expect_near(plain.logits(path), found.subspan(i * 512, 512)))
                << "node " << nodes[i];
          }
        };
        ASSERT_NO_FATAL_FAILURE(expect({-1}));
        ASSERT_NO_FATAL_FAILURE(expect({0, 1, 2}));
        for (int node = 3; node < 12; ++node) ASSERT_NO_FATAL_FAILURE(expect({node}));
        const std::vector<int32_t> more = test::random_tokens(random, 3);
        text.insert(text.end(), more.begin(), more.end());
        session.append(more);
      }
    }
  }
}

TEST(LongspecDraft, TokensEqualPlainDecodingInEveryPageFormat) {
  std::mt19937 random(test::seed(1));
  const std::vector<int32_t> prompt = test::random_tokens(random, 120);
  const std::string file = trained(*test::floats(), 50).write("longspec");
  const std::pair<const char*, const char*> cases[] = {{"dense", "f32"},
                                                       {"dense", "bf16"},
                                                       {"dense", "q8"},
                                                       {"dense", "q4"},
                                                       {"window:sink=4,window=40", "f32"},
                                                       {"quest:budget=64,dense_layers=0", "f32"}};
  for (const auto& [attend, cache] : cases) {
    for (const std::vector<std::string>& steps :
         {std::vector<std::string>{}, {"temperature:t=0.8", "top-k:k=20"}}) {
      SCOPED_TRACE(testing::Message() << attend << ", " << cache << ", " << steps.size() << " steps");
      Session session = longspec_session(test::floats(), prompt, attend, cache);
      Sampler sampler(steps, 3);
      const std::vector<int32_t> plain = test::decode_plainly(session, sampler, prompt, 20);
      const auto longspec = longspec_source(file, session);
      test::DraftRun run = test::decode_with(session, *longspec, sampler, prompt, 20, 24);
      run.tokens.resize(20);
      EXPECT_EQ(run.tokens, plain);
      EXPECT_GT(run.drafted, 20);
    }
  }
}

/// A drafter that only passes the embedding on, so that the model's output matrix gives the next token of a
/// successor model.
std::string knowing_file(const Model& model) {
  test::TrainedDraft draft = trained(model);
  for (const char* name : {"attn_output.weight", "cross_output.weight", "ffn_down.weight"})
    std::ranges::fill(draft.tensors[name].values, 0.0f);
  return draft.write("knowing-longspec");
}

TEST(LongspecDraft, ADrafterThatKnowsTheTextIsAccepted) {
  const auto model = test::open_tiny(test::successor_file([](int32_t x) { return (5 * x + 3) % 64; }));
  const std::string file = knowing_file(*model);
  const std::vector<int32_t> prompt{7, 9, 11};
  for (const std::string attend : {"dense", "quest:budget=64,dense_layers=0"}) {
    Session session = longspec_session(model, prompt, attend);
    Sampler sampler;
    const std::vector<int32_t> plain = test::decode_plainly(session, sampler, prompt, 61);
    const auto longspec = longspec_source(file, session, ",width=1");
    const test::DraftRun run = test::decode_with(session, *longspec, sampler, prompt, 61);
    EXPECT_EQ(std::vector(run.tokens.begin(), run.tokens.begin() + 61), plain);
    EXPECT_EQ(run.forwards, 10) << "6 tokens per pass";
    EXPECT_EQ(run.accepted, run.drafted);
  }
}

TEST(LongspecDraft, LevelsHaveTheWidthsOfThePaper) {
  std::mt19937 random(test::seed(2));
  const std::vector<int32_t> prompt = test::random_tokens(random, 30);
  Session session = longspec_session(test::floats(), prompt);
  const auto longspec = longspec_source(trained(*test::floats()).write("widths"), session);
  Sampler sampler;
  std::vector<int32_t> text = prompt;
  text.push_back(7);
  const Draft draft = longspec->propose({.tokens = text, .prompt = 30, .sampler = &sampler, .position = 31}, 63);
  std::vector<int> level(5);
  for (int node = 0; node < draft.size(); ++node) ++level[draft.tree.depth(node)];
  EXPECT_EQ(level, (std::vector<int>{4, 16, 16, 16, 11}));
}

TEST(LongspecDraft, MemoryDoesNotDependOnTheLengthOfTheText) {
  std::mt19937 random(test::seed(3));
  const std::vector<std::byte> bytes = trained(*test::floats(), 32).bytes();
  const std::vector<int32_t> text = test::random_tokens(random, 400);
  Session session = longspec_session(test::floats(), {text.begin(), text.begin() + 10});
  LongDrafter drafter = drafter_of(bytes, session);
  drafter.begin(std::span(text).first(10), 1);
  const size_t before = drafter.window_bytes();
  EXPECT_EQ(before, 2u * 32 * 2 * 8 * sizeof(float));
  session.append(std::span(text).subspan(10));
  drafter.begin(text, 1);
  EXPECT_EQ(drafter.window_bytes(), before);
  // The window holds the newest tokens, however they were added.
  LongDrafter at_once = drafter_of(bytes, session);
  at_once.begin(text, 1);
  const int root = -1;
  const std::span<const float> found = drafter.logits({}, {&root, 1}), expected = at_once.logits({}, {&root, 1});
  for (size_t i = 0; i < found.size(); ++i) ASSERT_NEAR(found[i], expected[i], 1e-4);
}

TEST(LongspecDraft, WorksWithTheHeadsOfOtherArchitectures) {
  std::mt19937 random(test::seed(4));
  for (const char* name : {"tiny-qwen3-f16", "tiny-gpt2-f16", "architectures/tiny-gemma3-f16",
                           "architectures/tiny-gpt-oss-f16", "architectures/tiny-falcon-h1-f16"}) {
    const std::string path = test::golden(name) + ".gguf";
    FATHOM_NEEDS(path);
    SCOPED_TRACE(name);
    const auto model = Model::open(path);
    std::vector<int32_t> prompt(80);
    for (int32_t& token : prompt) token = static_cast<int32_t>(random() % 200);
    Session session = longspec_session(model, prompt);
    Sampler sampler;
    const std::vector<int32_t> plain = test::decode_plainly(session, sampler, prompt, 8);
    const auto longspec = longspec_source(trained(*model).write("architecture"), session);
    test::DraftRun run = test::decode_with(session, *longspec, sampler, prompt, 8, 10);
    run.tokens.resize(8);
    EXPECT_EQ(run.tokens, plain);
    EXPECT_GT(run.drafted, 5);
  }
}

TEST(LongspecDraft, ReportsWrongFilesModelsAndSessions) {
  Session session = longspec_session(test::floats(), {1, 2, 3});
  const std::string file = trained(*test::floats()).write("errors");
  EXPECT_THROW(draft_methods().make("longspec:file=" + file,
                                    DraftSetup{.model = test::floats(), .runtime = test::draft_runtime()}),
               Error);
  EXPECT_THROW(longspec_source(test::small_path(), session), Error);
  EXPECT_THROW(longspec_source("/no/such.gguf", session), Error);
  EXPECT_NO_THROW(longspec_source(file, session));
  const std::string path = test::golden("tiny-mamba-f16") + ".gguf";
  FATHOM_NEEDS(path);
  const auto mamba = Model::open(path);
  Session recurrent(mamba, test::draft_runtime());
  const std::string other =
      test::random_longspec(mamba->config(), test::floats()->network().attention().back()).write("mamba");
  EXPECT_THROW(longspec_source(other, recurrent), Error) << "no attention";
}

}  // namespace
}  // namespace fathom
