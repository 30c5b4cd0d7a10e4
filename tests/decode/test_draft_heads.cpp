// Drafts of trained heads: the logits of heads equal a plain recomputation, and drafts do not change the text.
#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "decode/drafts/draft_heads.h"
#include "draft_files.h"
#include "models/plain_llama.h"
#include "seed.h"

namespace fathom {
namespace {

std::unique_ptr<DraftSource> source(const std::string& file, Session& session, const std::string& more = "") {
  return draft_methods().make(
      "heads:file=" + file + more,
      DraftSetup{.model = session.engine().shared_model(), .runtime = test::draft_runtime(), .session = &session});
}

Session session_of(const std::shared_ptr<const Model>& model, const std::vector<int32_t>& prompt,
                   const std::string& attend = "dense") {
  Session session(model, test::draft_runtime(), {.attend = attend, .cache = "f32"});
  session.append(prompt);
  return session;
}

/// The logits of head i by its formulas.
std::vector<double> plain_logits(const test::TrainedDraft& draft, const test::PlainLlama& model, int i,
                                 const std::vector<double>& hidden, std::span<const int32_t> path) {
  const std::string head = "head." + std::to_string(i) + ".";
  const bool sequential = draft.flags.at("draft.sequential");
  std::vector<double> z = hidden;
  for (int t = 0; sequential && t <= i; ++t) {
    const std::vector<double> embedding = model.embedding(path[t]);
    z.insert(z.end(), embedding.begin(), embedding.end());
  }
  std::vector<double> y = sequential ? draft.product(head + "residual.weight", z) : z;
  for (int k = 0; k < draft.keys.at("draft.blocks"); ++k) {
    const std::string block = head + "block." + std::to_string(k) + ".";
    const std::vector<double> inner = draft.product(block + "weight", k == 0 ? z : y, block + "bias");
    for (size_t d = 0; d < y.size(); ++d) y[d] += test::plain_silu(inner[d]);
  }
  return draft.tensors.count(head + "output.weight") ? draft.product(head + "output.weight", y) : model.output(y);
}

TEST(HeadsDraft, LogitsEqualAPlainRecomputation) {
  std::mt19937 random(test::seed(0));
  const auto model = test::floats();
  const test::PlainLlama plain(*model->file());
  for (const bool sequential : {true, false}) {
    for (const bool own_output : {true, false}) {
      for (const int blocks : {1, 3}) {
        const test::TrainedDraft draft = test::random_heads(model->config(), sequential, own_output, 4, blocks);
        const std::vector<std::byte> bytes = draft.bytes();
        DraftHeads heads(DraftFile::from(Gguf::parse(bytes, "heads"), "heads", *model), model);
        ASSERT_EQ(heads.count(), 4);
        ASSERT_EQ(heads.sequential(), sequential);
        for (int i = 0; i < 4; ++i) {
          test::TrainedDraft values = draft;
          const std::vector<float> hidden = values.normal(64, 1, 0);
          for (const int rows : {1, 3, 20}) {
            const std::vector<int32_t> paths = test::random_tokens(random, rows * (i + 1));
            const std::span<const float> found = heads.logits(test::draft_runtime()->work(), i, hidden, paths);
            ASSERT_EQ(found.size(), 512u * rows);
            for (int r = 0; r < rows; ++r)
              ASSERT_NO_FATAL_FAILURE(
                  test::expect_near(plain_logits(draft, plain, i, {hidden.begin(), hidden.end()},
                                                 std::span(paths).subspan(r * (i + 1), i + 1)),
                                    found.subspan(r * 512, 512)))
                  << "head " << i << ", row " << r << (sequential ? ", sequential" : ", independent");
          }
        }
      }
    }
  }
}

TEST(HeadsDraft, ZeroedColumnsOfTheTokensGiveIndependentHeads) {
  std::mt19937 random(test::seed(1));
  const auto model = test::floats();
  test::TrainedDraft independent = test::random_heads(model->config(), false, true);
  test::TrainedDraft sequential = independent;
  sequential.flags["draft.sequential"] = true;
  for (int i = 0; i < 3; ++i) {
    const std::string head = "head." + std::to_string(i) + ".";
    const int64_t inputs = (i + 2) * 64;
    test::TrainedDraft::Tensor residual{64, inputs, std::vector<float>(64 * inputs)}, first = residual;
    for (int64_t r = 0; r < 64; ++r) {
      residual.values[r * inputs + r] = 1;
      std::copy_n(independent.tensors[head + "block.0.weight"].values.data() + r * 64, 64,
                  first.values.data() + r * inputs);
    }
    sequential.tensors[head + "residual.weight"] = residual;
    sequential.tensors[head + "block.0.weight"] = first;
  }
  const std::vector<std::byte> a = independent.bytes(), b = sequential.bytes();
  DraftHeads first(DraftFile::from(Gguf::parse(a, "a"), "heads", *model), model),
      second(DraftFile::from(Gguf::parse(b, "b"), "heads", *model), model);
  const std::vector<float> hidden = independent.normal(64, 1, 0);
  for (int i = 0; i < 3; ++i) {
    const std::vector<int32_t> path = test::random_tokens(random, i + 1);
    const std::span<const float> expected = first.logits(test::draft_runtime()->work(), i, hidden, path);
    const std::vector<double> values(expected.begin(), expected.end());
    ASSERT_NO_FATAL_FAILURE(
        test::expect_near(values, second.logits(test::draft_runtime()->work(), i, hidden, path)));
  }
}

TEST(HeadsDraft, TokensEqualPlainDecoding) {
  std::mt19937 random(test::seed(2));
  const std::vector<int32_t> prompt = test::random_tokens(random, 120);
  for (const bool sequential : {true, false}) {
    const std::string file = test::random_heads(test::floats()->config(), sequential, !sequential).write("heads");
    for (const std::string attend : {"dense", "window:sink=4,window=40", "quest:budget=64,dense_layers=0"}) {
      for (const std::vector<std::string>& steps :
           {std::vector<std::string>{}, {"temperature:t=0.8", "top-k:k=20"}, {"repetition:penalty=1.3"}}) {
        SCOPED_TRACE(testing::Message() << attend << ", " << steps.size() << " steps");
        Session session = session_of(test::floats(), prompt, attend);
        Sampler sampler(steps, 3);
        const std::vector<int32_t> plain = test::decode_plainly(session, sampler, prompt, 25);
        const auto heads = source(file, session);
        test::DraftRun run = test::decode_with(session, *heads, sampler, prompt, 25, 12);
        run.tokens.resize(25);
        EXPECT_EQ(run.tokens, plain);
        EXPECT_GT(run.drafted, 25) << "there are drafts";
      }
    }
  }
}

/// Heads that predict next(x) after each token x of a successor model: R takes the newest token's embedding.
test::TrainedDraft knowing_heads(const ModelConfig& model, int steps) {
  test::TrainedDraft draft = test::random_heads(model, true, false, steps, 1);
  for (int i = 0; i < steps; ++i) {
    const std::string head = "head." + std::to_string(i) + ".";
    for (auto& [name, tensor] : draft.tensors)
      if (name.starts_with(head)) std::ranges::fill(tensor.values, 0.0f);
    test::TrainedDraft::Tensor& residual = draft.tensors[head + "residual.weight"];
    for (int64_t d = 0; d < 64; ++d) residual.values[d * residual.cols + residual.cols - 64 + d] = 1;
  }
  return draft;
}

TEST(HeadsDraft, HeadsThatKnowTheTextAreAccepted) {
  const auto model = test::open_tiny(test::successor_file([](int32_t x) { return (5 * x + 3) % 64; }));
  const std::string file = knowing_heads(model->config(), 4).write("knowing");
  const std::vector<int32_t> prompt{7, 9, 11};
  for (const std::string attend : {"dense", "quest:budget=64,dense_layers=0"}) {
    Session session = session_of(model, prompt, attend);
    Sampler sampler;
    const std::vector<int32_t> plain = test::decode_plainly(session, sampler, prompt, 41);
    const auto heads = source(file, session);
    const test::DraftRun run = test::decode_with(session, *heads, sampler, prompt, 41, 4);
    EXPECT_EQ(std::vector(run.tokens.begin(), run.tokens.begin() + 41), plain);
    EXPECT_EQ(run.forwards, 8) << "5 tokens per pass: one head for each of 4";
    EXPECT_EQ(run.accepted, run.drafted);
  }
}

TEST(HeadsDraft, DraftsAreTheMostLikelyNodes) {
  std::mt19937 random(test::seed(3));
  const std::vector<int32_t> prompt = test::random_tokens(random, 50);
  const test::TrainedDraft trained = test::random_heads(test::floats()->config(), true, false);
  Session session = session_of(test::floats(), prompt);
  const auto heads = source(trained.write("likely"), session, ",topk=3");
  Sampler sampler;
  test::keep_hidden(session, *heads, prompt);
  std::vector<int32_t> text = prompt;
  text.push_back(7);
  const DraftContext context{
      .tokens = text, .prompt = 50, .sampler = &sampler, .position = 51, .hidden = session.hidden()};
  const Draft draft = heads->propose(context, 10);
  ASSERT_EQ(draft.size(), 10);
  // A tree of all nodes, whose best ten by the product of probabilities are the draft.
  const test::PlainLlama plain(*test::floats()->file());
  struct Path {
    std::vector<int32_t> tokens;
    double probability;
  };
  std::vector<Path> level{{{7}, 1}}, all;
  for (int i = 0; i < 3; ++i) {
    std::vector<Path> next;
    for (const Path& path : level) {
      const std::vector<double> hidden(context.hidden.begin(), context.hidden.end());
      std::vector<double> logits = plain_logits(trained, plain, i, hidden, path.tokens);
      double sum = 0;
      for (const double logit : logits) sum += std::exp(logit - std::ranges::max(logits));
      const double most = std::ranges::max(logits);
      for (int k = 0; k < 3; ++k) {
        const auto best = std::ranges::max_element(logits);
        Path child = path;
        child.tokens.push_back(static_cast<int32_t>(best - logits.begin()));
        child.probability *= std::exp(*best - most) / sum;
        next.push_back(child);
        *best = -1e30;
      }
    }
    all.insert(all.end(), next.begin(), next.end());
    level = std::move(next);
  }
  std::ranges::sort(all, std::greater(), &Path::probability);
  for (int i = 0; i < 10; ++i) {
    int node = -1;
    for (const int32_t token : std::span(all[i].tokens).subspan(1)) {
      node = draft.find_child(node, token);
      ASSERT_GE(node, 0) << "path " << i;
    }
  }
  EXPECT_EQ(heads->propose({.tokens = text, .prompt = 50, .sampler = &sampler, .position = 51}, 10).size(), 0)
      << "no hidden state";
}

TEST(HeadsDraft, WeightsThatAreNotFiniteGiveNoDrafts) {
  test::TrainedDraft draft = test::random_heads(test::floats()->config(), true, false);
  draft.tensors["head.0.block.0.bias"].values[3] = std::numeric_limits<float>::quiet_NaN();
  const std::vector<int32_t> prompt{1, 2, 3};
  Session session = session_of(test::floats(), prompt);
  const auto heads = source(draft.write("nan"), session);
  Sampler sampler;
  const test::DraftRun run = test::decode_with(session, *heads, sampler, prompt, 5);
  EXPECT_EQ(run.drafted, 0);
}

TEST(HeadsDraft, ReportsWrongFilesAndSessions) {
  const std::vector<int32_t> prompt{1, 2, 3};
  Session session = session_of(test::floats(), prompt);
  const DraftSetup setup{.model = test::floats(), .runtime = test::draft_runtime(), .session = &session};
  EXPECT_THROW(draft_methods().make("heads", setup), Error);
  EXPECT_THROW(source("/no/such.gguf", session), Error);
  EXPECT_THROW(source(test::floats_path(), session), Error) << "a model";
  EXPECT_THROW(source(test::random_transfer(test::floats()->config(), {1}).write("kind"), session), Error);
  Session part(test::floats(), test::draft_runtime(), {.layers = 2});
  const std::string file = test::random_heads(test::floats()->config(), true, false).write("layers");
  EXPECT_THROW(source(file, part), Error);
  EXPECT_NO_THROW(source(file, session));
}

}  // namespace
}  // namespace fathom
