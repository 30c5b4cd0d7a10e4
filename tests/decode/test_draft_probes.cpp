// Drafts with probes: placeholders (lexical-unit) and pseudo rows (hidden-transfer).
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "base/error.h"
#include "decode/draft_budget.h"
#include "decode/drafter.h"
#include "decode/drafts/probed_draft.h"
#include "draft_files.h"
#include "seed.h"

namespace fathom {
namespace {

Session session_of(const std::shared_ptr<const Model>& model, const std::vector<int32_t>& prompt,
                   const std::string& attend = "dense") {
  Session session(model, test::draft_runtime(), {.attend = attend, .cache = "f32"});
  session.append(prompt);
  return session;
}

std::unique_ptr<DraftSource> source(const std::string& spec, Session& session) {
  return draft_methods().make(
      spec,
      DraftSetup{.model = session.engine().shared_model(), .runtime = test::draft_runtime(), .session = &session});
}

std::vector<std::string> sources_of_floats() {
  const ModelConfig& model = test::floats()->config();
  return {"lexical-unit:pad=5,length=4,threshold=0", "lexical-unit:pad=0,length=2",
          "hidden-transfer:file=" + test::random_transfer(model, {1, 1, 1}).write("transfer"),
          "hidden-transfer:topk=2,nodes=15,file=" + test::random_transfer(model, {1, 2}).write("transfer2")};
}

TEST(ProbedDraft, TokensEqualPlainDecoding) {
  std::mt19937 random(test::seed(0));
  const std::vector<int32_t> prompt = test::random_tokens(random, 120);
  for (const std::string& spec : sources_of_floats()) {
    for (const std::string attend : {"dense", "window:sink=4,window=40", "quest:budget=64,dense_layers=0"}) {
      for (const std::vector<std::string>& steps :
           {std::vector<std::string>{}, {"temperature:t=0.8", "top-k:k=20"}}) {
        SCOPED_TRACE(testing::Message() << spec << ", " << attend << ", " << steps.size() << " steps");
        Session session = session_of(test::floats(), prompt, attend);
        Sampler sampler(steps, 3);
        const std::vector<int32_t> plain = test::decode_plainly(session, sampler, prompt, 25);
        const auto probed = source(spec, session);
        for (const int nodes : {1, 5, 30}) {
          Session copy = session.fork();
          test::DraftRun run = test::decode_with(copy, *probed, sampler, prompt, 25, nodes);
          run.tokens.resize(25);
          ASSERT_EQ(run.tokens, plain) << nodes << " nodes";
        }
      }
    }
  }
}

TEST(ProbedDraft, DraftsHaveProbesAfterTheRootAndAfterCandidates) {
  std::mt19937 random(test::seed(1));
  const std::vector<int32_t> prompt = test::random_tokens(random, 40);
  for (const std::string attend : {"dense", "quest:budget=64,dense_layers=0"}) {
    Session session = session_of(test::floats(), prompt, attend);
    const auto probed = source("lexical-unit:pad=5,length=4,threshold=0", session);
    Sampler sampler;
    std::vector<int32_t> text = prompt;
    text.push_back(7);
    const DraftContext context{.tokens = text, .prompt = 40, .sampler = &sampler, .position = 41};
    const Draft first = probed->propose(context, 63);
    EXPECT_EQ(first.tokens, (std::vector<int32_t>{5, 5, 5}));
    EXPECT_EQ(first.probes, (std::vector<uint8_t>{1, 2, 3}));
    EXPECT_TRUE(first.tree.is_chain());
    EXPECT_EQ(first.find_child(-1, 5), -1) << "probes are never accepted";
    EXPECT_EQ(first.find_probe(-1), 0);
    EXPECT_EQ(first.find_probe(1), 2);
    EXPECT_EQ(first.find_probe(2), -1);
    // Rows that predict 9, 10 and 11 after the root.
    std::vector<std::vector<float>> rows(4, std::vector<float>(512));
    for (int i = 0; i < 4; ++i) rows[i][i == 0 ? 8 : 8 + i] = 20;
    text.push_back(8);
    probed->observe({.tokens = text,
                     .emitted = std::span(text).last(1),
                     .draft = &first,
                     .accepted = {},
                     .root = 7,
                     .logits = [&](int node) { return std::span<const float>(rows[node + 1]); }});
    const Draft second = probed->propose({.tokens = text, .prompt = 40, .sampler = &sampler, .position = 42}, 63);
    int node = -1;
    for (const int32_t token : {9, 10, 11}) {
      node = second.find_child(node, token);
      ASSERT_GE(node, 0);
    }
    const bool chain = attend != "dense";
    EXPECT_EQ(second.size(), chain ? 6 : 15) << "three candidates; three probes after each, and after the root";
    EXPECT_EQ(second.tree.is_chain(), chain);
    EXPECT_EQ(second.find_probe(-1) < 0, chain);
    int probe = node;
    for (int step = 1; step <= 3; ++step) {
      probe = second.find_probe(probe);
      ASSERT_GE(probe, 0);
      EXPECT_EQ(second.probes[probe], step);
    }
    for (int i = 0; i < second.size(); ++i) {
      EXPECT_GT(second.estimates[i], 0);
      EXPECT_LE(second.estimates[i], 1);
    }
    EXPECT_LE(probed->propose({.tokens = text, .prompt = 40, .sampler = &sampler, .position = 42}, 4).size(), 4);
  }
}

TEST(LexicalUnit, OnlyLikelyTokensAreDrafted) {
  const std::vector<int32_t> prompt{1, 2, 3};
  Session session = session_of(test::floats(), prompt);
  for (const auto& [threshold, expected] : {std::pair("0.5", 1), {"0.2", 2}, {"0.01", 3}}) {
    const auto probed = source(concat("lexical-unit:pad=5,length=4,threshold=", threshold), session);
    Sampler sampler;
    std::vector<int32_t> text{1, 2, 3, 4};
    const Draft first = probed->propose({.tokens = text, .prompt = 3, .sampler = &sampler, .position = 4}, 63);
    // The probabilities of the best token: about 0.8, 0.3 and 0.05.
    const float best[] = {0, std::log(511 * 0.8f / 0.2f), std::log(511 * 0.3f / 0.7f),
                          std::log(511 * 0.05f / 0.95f)};
    std::vector<std::vector<float>> rows(4, std::vector<float>(512));
    for (int i = 0; i < 4; ++i) rows[i][40 + i] = best[i];
    text.push_back(8);
    probed->observe({.tokens = text,
                     .emitted = std::span(text).last(1),
                     .draft = &first,
                     .accepted = {},
                     .logits = [&](int node) { return std::span<const float>(rows[node + 1]); }});
    const Draft second = probed->propose({.tokens = text, .prompt = 3, .sampler = &sampler, .position = 5}, 63);
    int candidates = 0;
    for (int i = 0; i < second.size(); ++i) candidates += !second.is_probe(i);
    EXPECT_EQ(candidates, expected) << threshold;
  }
}

/// Decodes 60 tokens with a source and expects those of plain decoding.
test::DraftRun run_source(const std::shared_ptr<const Model>& model, const std::string& spec, int nodes,
                          const std::string& attend = "dense") {
  const std::vector<int32_t> prompt{3, 4, 5};
  Session session = session_of(model, prompt, attend);
  Sampler sampler;
  const std::vector<int32_t> plain = test::decode_plainly(session, sampler, prompt, 60);
  const auto probed = source(spec, session);
  test::DraftRun run = test::decode_with(session, *probed, sampler, prompt, 60, nodes);
  run.tokens.resize(60);
  EXPECT_EQ(run.tokens, plain) << spec;
  return run;
}

TEST(LexicalUnit, PlaceholdersThatTheModelEmitsAreNotAcceptedAsSuch) {
  for (const int32_t emitted : {9, 5}) {  // after every token, and as the placeholder's prediction
    const auto model = test::open_tiny(test::successor_file([=](int32_t) { return emitted; }));
    for (const std::string attend : {"dense", "quest:budget=64,dense_layers=0"}) {
      const test::DraftRun run = run_source(model, "lexical-unit:pad=5,length=4", 63, attend);
      EXPECT_EQ(run.accepted, run.drafted);
      EXPECT_EQ(run.drafted, 3 * (run.forwards - 1)) << "the first pass has no candidates";
      EXPECT_LE(run.forwards, 16);
    }
  }
}

TEST(LexicalUnit, TheModelStatesPlaceholderAndLength) {
  const auto tuned = [](int64_t pad, int64_t length) {
    return test::open_tiny(test::successor_file([](int32_t) { return 9; },
                                                [=](GgufWriter& writer) {
                                                  writer.set("fathom.lexical_unit.pad", GgufType::kU32, pad);
                                                  writer.set("fathom.lexical_unit.length", GgufType::kU32, length);
                                                }));
  };
  EXPECT_EQ(run_source(tuned(6, 3), "lexical-unit", 63).drafted,
            2 * (run_source(tuned(6, 3), "lexical-unit", 63).forwards - 1));
  Session plain = session_of(test::floats(), {1, 2}), far = session_of(tuned(512, 3), {1, 2}),
          longer = session_of(tuned(6, 9), {1, 2});
  EXPECT_THROW(source("lexical-unit", plain), Error);
  EXPECT_THROW(source("lexical-unit:pad=3", plain), Error) << "no length";
  EXPECT_THROW(source("lexical-unit:pad=512,length=3", plain), Error);
  EXPECT_THROW(source("lexical-unit:pad=3,length=9", plain), Error);
  EXPECT_NO_THROW(source("lexical-unit:pad=3,length=3", plain));
  EXPECT_THROW(source("lexical-unit", far), Error);
  EXPECT_THROW(source("lexical-unit", longer), Error);
  EXPECT_NO_THROW(source("lexical-unit:pad=3", longer = session_of(tuned(6, 8), {1, 2})));
}

/// Matrices that map the state of token x to that of x + i, i = 1..steps, of 64 tokens.
std::string shift_file(const ModelConfig& model, std::vector<int32_t> layers, const std::string& name) {
  test::TrainedDraft draft = test::random_transfer(model, layers);
  for (size_t i = 0; i < layers.size(); ++i) {
    std::vector<float>& values = draft.tensors["transfer." + std::to_string(i) + ".weight"].values;
    std::ranges::fill(values, 0.0f);
    for (size_t x = 0; x < 64; ++x) values[(x + i + 1) % 64 * 64 + x] = 1;
  }
  return draft.write(name);
}

TEST(HiddenTransferDraft, MatricesThatKnowTheTextAreAccepted) {
  const auto model = test::open_tiny(test::successor_file([](int32_t x) { return (x + 1) % 64; }));
  for (const std::vector<int32_t>& layers : {std::vector<int32_t>{1}, {1, 1, 1}, {1, 2, 2, 2}}) {
    const std::string file = shift_file(model->config(), layers, "shift" + std::to_string(layers.size()));
    const auto steps = std::ssize(layers);
    for (const std::string attend : {"dense", "quest:budget=64,dense_layers=0"}) {
      SCOPED_TRACE(testing::Message() << steps << " steps, " << attend);
      const test::DraftRun run = run_source(model, "hidden-transfer:topk=1,file=" + file, 63, attend);
      EXPECT_EQ(run.accepted, run.drafted);
      EXPECT_EQ(run.drafted, steps * (run.forwards - 1)) << "the first pass has no candidates";
    }
  }
}

TEST(HiddenTransferDraft, ReportsWrongFilesAndCombinations) {
  const std::vector<int32_t> prompt{1, 2, 3};
  Session session = session_of(test::floats(), prompt);
  const ModelConfig& model = test::floats()->config();
  const std::string file = test::random_transfer(model, {1, 1}).write("alone");
  EXPECT_THROW(source("hidden-transfer", session), Error);
  EXPECT_THROW(source("hidden-transfer:file=" + test::random_transfer(model, {3}).write("layer3"), session), Error);
  EXPECT_THROW(source("hidden-transfer:file=" + test::random_transfer(model, {0}).write("layer0"), session), Error);
  EXPECT_THROW(source("hidden-transfer:file=" + test::random_heads(model, true, false).write("a"), session), Error);
  const DraftSetup setup{.model = test::floats(), .runtime = test::draft_runtime(), .session = &session};
  EXPECT_NO_THROW(Drafter({{"hidden-transfer:file=" + file}}, setup));
  for (const std::string& alone : {"hidden-transfer:file=" + file, std::string("lexical-unit:pad=1,length=3")})
    EXPECT_THROW(Drafter({{"recycle", alone}}, setup), Error);
  Session evicting(test::floats(), test::draft_runtime(), {.evict = "h2o"});
  EXPECT_THROW(Drafter({{"hidden-transfer:file=" + file}},
                       {.model = test::floats(), .runtime = test::draft_runtime(), .session = &evicting}),
               Error);
}

TEST(ProbedDraft, TheBudgetPaysForProbesThatPredictTheText) {
  // Passes cost 1 + 0.05 per further row. Probes after a node predict the next three tokens, always or never.
  for (const bool right : {true, false}) {
    ProbedDrafts drafts({.steps = 3, .candidates = 3, .token = 5});
    DraftBudget budget;
    Sampler sampler;
    std::vector<int32_t> text{1};
    const auto next = [](size_t i) { return static_cast<int32_t>(100 + i * 7 % 100); };
    double seconds = 0;
    const size_t count = 3000;
    while (text.size() < count) {
      const auto context = static_cast<int64_t>(text.size()) - 1;
      const int nodes = budget.nodes(context);
      Draft draft;
      if (nodes > 0)
        draft = drafts.propose({.tokens = text, .sampler = &sampler, .position = std::ssize(text)}, nodes);
      if (draft.size() > 0) budget.prune(draft);
      const size_t before = text.size();
      std::vector<int> accepted;
      for (int node = -1;;) {
        text.push_back(next(text.size()));
        node = draft.find_child(node, text.back());
        if (node < 0) break;
        accepted.push_back(node);
      }
      std::vector<float> row(512);
      drafts.observe({.tokens = text,
                      .emitted = std::span(text).subspan(before),
                      .draft = &draft,
                      .accepted = accepted,
                      .logits = [&](int node) {
                        const size_t at = text.size() + draft.probes[node] - 1;
                        std::ranges::fill(row, 0.0f);
                        row[next(at) + (right ? 0 : 200)] = 20;
                        return std::span<const float>(row);
                      }});
      const double pass = 1 + 0.05 * draft.size();
      seconds += pass;
      budget.observe({.context = context,
                      .verify_seconds = pass,
                      .draft = &draft,
                      .accepted = accepted,
                      .emitted = std::span(text).subspan(before)});
    }
    const double speed = static_cast<double>(count) / seconds;
    std::printf("%s probes: %.2f tokens in the time of a plain step\n", right ? "right" : "wrong", speed);
    if (right) {
      EXPECT_GT(speed, 1.8);
    } else {
      EXPECT_GT(speed, 0.97);
    }
  }
}

}  // namespace
}  // namespace fathom
