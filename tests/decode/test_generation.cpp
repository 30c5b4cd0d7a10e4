// Generation with drafts: the same tokens as without, for every source, sampler, attention method and batch.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <random>

#include "decode/constraint.h"
#include "decode/generation.h"
#include "decode/knn_lm.h"
#include "draft_files.h"
#include "models/tiny_model.h"
#include "paths.h"
#include "seed.h"
#include "shared_data.h"

namespace fathom {
namespace {

/// A model with its tokenizer and an engine.
struct Loaded {
  explicit Loaded(const std::string& path)
      : model(Model::open(path)), tokenizer(Vocabulary::read(*model->file())) {}
  std::shared_ptr<const Model> model;
  Tokenizer tokenizer;
  std::shared_ptr<Runtime> runtime = std::make_shared<Runtime>(2);
};
const Loaded& seedling() {
  static const Loaded loaded(test::seedling_path());
  return loaded;
}

/// Returns the text of the project's documents, as prompts of natural text.
const std::string& documents() {
  static const std::string text = [] {
    std::string all;
    for (const char* file : {"tests/data/prose.txt", "README.md"}) {
      std::ifstream in(test::source_path(file));
      all += std::string(std::istreambuf_iterator<char>(in), {});
    }
    return all;
  }();
  return text;
}

std::vector<int32_t> prompt_of(const Loaded& loaded, std::mt19937& random) {
  const std::string& text = documents();
  const size_t bytes = 40 + random() % 800;
  return loaded.tokenizer.encode(text.substr(random() % (text.size() - bytes), bytes));
}

struct SamplingCase {
  std::vector<std::string> steps;
  std::string constraint;
};
const std::vector<SamplingCase>& sampling_cases() {
  static const std::vector<SamplingCase> all = {
      {{}, ""},
      {{"repetition:penalty=1.2,window=64", "top-p:p=0.9", "temperature:t=0.8"}, ""},
      {{"presence:penalty=0.4", "temperature:t=1"},
       R"(strings:list=({"answer": "yes"}|{"answer": "no"}|{"answer": "a longer text, then"}))"}};
  return all;
}

struct TextCase {
  const Loaded* loaded;
  std::vector<int32_t> prompt;
  SamplingCase sampling;
  SessionOptions session{};
  uint64_t seed = 0;
  int64_t tokens = 60;
  std::vector<std::string> stop{};
};

/// One text with all that its generation needs.
struct Text {
  Text(const TextCase& text, const std::vector<std::string>& drafts, std::shared_ptr<Engine> engine, int nodes)
      : session(std::move(engine), text.session),
        sampler(text.sampling.steps, text.seed),
        drafter({drafts, nodes}, {text.loaded->model, text.loaded->runtime, &text.loaded->tokenizer, &session}) {
    session.append(text.prompt);
    if (!text.sampling.constraint.empty())
      sampler.constrain(
          constraint_methods().make(text.sampling.constraint, ConstraintSetup{&text.loaded->tokenizer}),
          std::ssize(text.prompt));
    options.max_tokens = text.tokens;
    options.ignore_eos = text.sampling.constraint.empty();
    options.stop = text.stop;
    generation =
        std::make_unique<Generation>(session, text.loaded->tokenizer, sampler, text.prompt, options, &drafter);
  }
  Session session;
  Sampler sampler;
  Drafter drafter;
  GenerateOptions options;
  std::unique_ptr<Generation> generation;
};

struct Outcome {
  std::vector<int32_t> tokens;
  StopReason stop;
  std::vector<int32_t> session_ids;  // read by the session
  DraftReport report;
};

std::vector<Outcome> generate_all(std::span<const TextCase> texts, const std::vector<std::string>& drafts,
                                  int nodes = 0) {
  const auto engine = std::make_shared<Engine>(texts[0].loaded->model, texts[0].loaded->runtime);
  std::vector<std::unique_ptr<Text>> all;
  std::vector<Generation*> generations;
  for (const TextCase& text : texts) {
    all.push_back(std::make_unique<Text>(text, drafts, engine, nodes));
    generations.push_back(all.back()->generation.get());
  }
  while (!std::ranges::all_of(generations, &Generation::ended)) Generation::advance(generations);
  std::vector<Outcome> outcomes;
  for (const auto& text : all) {
    EXPECT_EQ(text->generation->error(), nullptr);
    const Generated result = text->generation->finish();
    const TokenList& ids = text->session.sequence().ids();
    outcomes.push_back({result.tokens, result.stop, ids.copy(0, ids.size()), result.drafts});
  }
  return outcomes;
}

void expect_same(const std::vector<Outcome>& expected, const std::vector<Outcome>& found) {
  ASSERT_EQ(expected.size(), found.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_EQ(expected[i].tokens, found[i].tokens) << "text " << i;
    ASSERT_EQ(expected[i].stop, found[i].stop) << "text " << i;
    ASSERT_EQ(expected[i].session_ids, found[i].session_ids) << "text " << i;
  }
}

/// Writes a draft file of random weights for the seedling, and returns the spec of its source.
std::string trained(const std::string& name) {
  const ModelConfig& model = seedling().model->config();
  const auto layers = seedling().model->network().attention();
  const test::TrainedDraft draft = name == "heads" ? test::random_heads(model, true, false)
                                   : name == "longspec"
                                       ? test::random_longspec(model, layers.back(), 20)
                                       : test::random_transfer(model, {model.layers / 2, model.layers - 1});
  return name + ":file=" + draft.write("seedling-" + name);
}

/// Expects texts to be the same with each list of sources as without drafts, alone with 7 nodes and in a batch.
void expect_plain_tokens(const std::vector<TextCase>& texts, const std::vector<std::vector<std::string>>& sources) {
  std::vector<Outcome> plain;
  for (const TextCase& text : texts) plain.push_back(generate_all({&text, 1}, {"none"})[0]);
  for (const std::vector<std::string>& source : sources) {
    SCOPED_TRACE(testing::Message() << source.back() << ", " << texts[0].session.attend << ", "
                                    << texts[0].sampling.steps.size() << " steps");
    std::vector<Outcome> alone;
    for (const TextCase& text : texts) alone.push_back(generate_all({&text, 1}, source, 7)[0]);
    ASSERT_NO_FATAL_FAILURE(expect_same(plain, alone));
    ASSERT_NO_FATAL_FAILURE(expect_same(plain, generate_all(texts, source))) << "in a batch";
  }
}

std::vector<TextCase> text_cases(std::mt19937& random, int n, const std::string& attend,
                                 const SamplingCase& sampling, int64_t tokens) {
  std::vector<TextCase> texts;
  for (int i = 0; i < n; ++i)
    texts.push_back({&seedling(),
                     prompt_of(seedling(), random),
                     sampling,
                     {.attend = attend},
                     static_cast<uint64_t>(i),
                     tokens});
  return texts;
}

TEST(Generation, ReportsLogprobsOfTheModelWithAndWithoutDrafts) {
  const std::vector<int32_t> prompt = seedling().tokenizer.encode(documents().substr(0, 700));
  const auto engine = std::make_shared<Engine>(seedling().model, seedling().runtime);
  const auto logprobs_of = [&](const std::vector<std::string>& drafts) {
    Session session(engine);
    Sampler sampler(std::vector<std::string>{"repetition:penalty=1.3", "temperature:t=0.8"}, 3);
    Drafter drafter({drafts}, {seedling().model, seedling().runtime, &seedling().tokenizer, &session});
    session.append(prompt);
    std::vector<TokenLogprobs> found;
    GenerateOptions options;
    options.max_tokens = 40;
    options.ignore_eos = true;
    options.top_logprobs = 3;
    options.on_logprobs = [&](const TokenLogprobs& token) { found.push_back(token); };
    const Generated text = generate(session, seedling().tokenizer, sampler, prompt, options, nullptr, &drafter);
    EXPECT_EQ(found.size(), text.tokens.size());
    for (size_t i = 0; i < found.size(); ++i) EXPECT_EQ(found[i].token.token, text.tokens[i]);
    return found;
  };
  const std::vector<TokenLogprobs> plain = logprobs_of({"none"}), drafted = logprobs_of({"auto"});
  Session session(engine);
  session.append(prompt);
  for (size_t i = 0; i < plain.size(); ++i) {
    const std::span<const float> logits = session.logits();
    double sum = 0;
    for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
    const int32_t token = plain[i].token.token;
    EXPECT_NEAR(plain[i].token.logprob, logits[token] - std::log(sum), 1e-4);
    ASSERT_EQ(plain[i].top.size(), 3);
    EXPECT_EQ(plain[i].top[0].token, std::ranges::max_element(logits) - logits.begin());
    EXPECT_GE(plain[i].top[1].logprob, plain[i].top[2].logprob);
    EXPECT_EQ(plain[i].token.logprob, drafted[i].token.logprob) << i;
    session.append(std::span(&token, 1));
  }
}

TEST(Generation, EverySourceGivesTheTokensOfPlainDecoding) {
  std::mt19937 random(test::seed(1));
  // The sources that need no other file, with parameters that suit short texts.
  const std::vector<std::vector<std::string>> sources = {{"auto"},
                                                         {"recycle"},
                                                         {"suffix"},
                                                         {"copy"},
                                                         {"ngram"},
                                                         {"trigram"},
                                                         {"superposed"},
                                                         {"self:attend=(window:sink=4,window=16)"},
                                                         {"rapid:chunk=32,budget=64"}};
  const auto& all = sampling_cases();
  const std::pair<std::string, std::vector<SamplingCase>> attends[] = {
      {"dense", all},
      {"quest:window=32,budget=96,dense_layers=0", {all[1]}},
      {"recycled:budget=64,share=0", {all[0]}}};
  for (const auto& [attend, samplings] : attends)
    for (const SamplingCase& sampling : samplings)
      ASSERT_NO_FATAL_FAILURE(expect_plain_tokens(text_cases(random, 3, attend, sampling, 40), sources));
}

TEST(Generation, TrainedSourcesGiveTheTokensOfPlainDecoding) {
  std::mt19937 random(test::seed(8));
  const std::vector<std::vector<std::string>> sources = {{"lexical-unit:pad=0,length=4,threshold=0"},
                                                         {trained("hidden-transfer")},
                                                         {"auto", trained("heads"), trained("longspec")}};
  const auto& all = sampling_cases();
  const std::pair<std::string, SamplingCase> cases[] = {{"dense", all[0]},
                                                        {"dense", all[1]},
                                                        {"dense", all[2]},
                                                        {"quest:window=32,budget=96,dense_layers=0", all[1]}};
  for (const auto& [attend, sampling] : cases)
    ASSERT_NO_FATAL_FAILURE(expect_plain_tokens(text_cases(random, 2, attend, sampling, 16), sources));
}

TEST(Generation, AutoGivesTheTokensOfPlainDecodingForManyPrompts) {
  std::mt19937 random(test::seed(2));
  for (int n = 0; n < 60; ++n) {
    const TextCase text{&seedling(), prompt_of(seedling(), random), sampling_cases()[n % 3], {}, random()};
    ASSERT_NO_FATAL_FAILURE(
        expect_same(generate_all({&text, 1}, {"none"}), generate_all({&text, 1}, {"auto"}, n % 20)))
        << "prompt " << n;
  }
}

TEST(Generation, EveryArchitectureGivesTheTokensOfPlainDecoding) {
  std::mt19937 random(test::seed(3));
  for (const char* name :
       {"tiny-llama-q4_k_m", "tiny-qwen2-f16", "tiny-mamba2-f16", "architectures/tiny-gemma3-f16"}) {
    const std::string path = test::golden(name) + ".gguf";
    FATHOM_NEEDS(path);
    SCOPED_TRACE(name);
    const Loaded loaded(path);
    for (size_t s = 0; s < 2; ++s) {
      std::vector<TextCase> texts;
      for (uint64_t i = 0; i < 2; ++i)
        texts.push_back({&loaded, prompt_of(loaded, random), sampling_cases()[s], {}, i});
      const std::vector<Outcome> plain = generate_all(texts, {"none"});
      for (const char* source : {"auto", "ngram", "lexical-unit:pad=0,length=3,threshold=0"})
        ASSERT_NO_FATAL_FAILURE(expect_same(plain, generate_all(texts, {source}, 6))) << source;
    }
  }
}

TEST(Generation, StopStringsAndLimitsInsideADraftEndTheTextAsInPlainDecoding) {
  std::mt19937 random(test::seed(4));
  int ended_by_string = 0;
  for (int n = 0; n < 24; ++n) {
    TextCase text{&seedling(), prompt_of(seedling(), random), sampling_cases()[0], {}, 0, 1 + n * 3, {"th", ". "}};
    if (n % 3 == 0) text.session.context = std::ssize(text.prompt) + 1 + n;
    const std::vector<Outcome> plain = generate_all({&text, 1}, {"none"});
    ASSERT_NO_FATAL_FAILURE(expect_same(plain, generate_all({&text, 1}, {"auto", "ngram"}, 10))) << n;
    ended_by_string += plain[0].stop == StopReason::kString;
  }
  EXPECT_GT(ended_by_string, 3);
}

/// A source that knows the text, or proposes something else.
class Oracle final : public DraftSource {
 public:
  Oracle(std::vector<int32_t> text, int depth, bool wrong) : text_(std::move(text)), depth_(depth), wrong_(wrong) {}
  Draft propose(const DraftContext& context, int nodes) override {
    Draft draft;
    for (int i = 0; i < std::min(depth_, nodes); ++i) {
      const size_t at = context.tokens.size() + i;
      if (at >= text_.size()) break;
      draft.add(i - 1, wrong_ ? (text_[at] + 1) % 4096 : text_[at]);
    }
    return draft;
  }

 private:
  std::vector<int32_t> text_;
  int depth_;
  bool wrong_;
};

TEST(Generation, AnOracleGivesDepthPlusOneTokensPerForwardAndWrongDraftsOne) {
  std::mt19937 random(test::seed(5));
  const TextCase text{&seedling(), prompt_of(seedling(), random), sampling_cases()[0], {}, 0, 61};
  const Outcome plain = generate_all({&text, 1}, {"none"})[0];
  std::vector<int32_t> known = text.prompt;
  known.insert(known.end(), plain.tokens.begin(), plain.tokens.end());
  for (const int depth : {1, 3, 5}) {
    for (const bool wrong : {false, true}) {
      const auto engine = std::make_shared<Engine>(seedling().model, seedling().runtime);
      Session session(engine);
      session.append(text.prompt);
      Sampler sampler;
      Drafter drafter(std::make_unique<Oracle>(known, depth, wrong), "oracle", 63, session);
      GenerateOptions options;
      options.max_tokens = 61;
      options.ignore_eos = true;
      const Generated result =
          generate(session, seedling().tokenizer, sampler, text.prompt, options, nullptr, &drafter);
      EXPECT_EQ(result.tokens, plain.tokens);
      EXPECT_EQ(result.forwards, wrong ? 60 : 60 / (depth + 1)) << depth;
      EXPECT_EQ(result.drafts.accepted(), wrong ? 0 : 60 - 60 / (depth + 1));
      Session expected(engine);
      expected.append(text.prompt);
      for (const int32_t token : std::span(plain.tokens).first(60)) expected.append({&token, 1});
      ASSERT_TRUE(
          std::ranges::equal(std::as_bytes(expected.logits()),
                             std::as_bytes(session.logits().empty() ? expected.logits() : session.logits())));
      for (int layer = 0; layer < session.sequence().layers(); ++layer) {
        const PagedKv &a = expected.sequence().kv(layer), &b = session.sequence().kv(layer);
        ASSERT_EQ(a.tokens(), b.tokens());
        for (size_t e = 0; e < a.table(0).size(); ++e) {
          ASSERT_EQ(a.table(0)[e].mask, b.table(0)[e].mask);
          ASSERT_EQ(a.table(0)[e].position, b.table(0)[e].position);
        }
      }
    }
  }
}

TEST(Generation, HeadsAndADatastoreReadDifferentHiddenStates) {
  std::mt19937 random(test::seed(7));
  const auto engine = std::make_shared<Engine>(seedling().model, seedling().runtime);
  const std::vector<std::vector<int32_t>> read{prompt_of(seedling(), random), prompt_of(seedling(), random)};
  const KnnLm knn(std::make_shared<Datastore>(build_datastore(*engine, read)), {.lambda = 0.9});
  const std::vector<int32_t> prompt = prompt_of(seedling(), random);
  GenerateOptions options;
  options.max_tokens = 30;
  options.ignore_eos = true;
  options.knn = &knn;
  const auto generate_with = [&](const std::vector<std::string>& drafts) {
    Session session(engine);
    session.keep_hidden({seedling().model->config().layers - 1});
    Drafter drafter({drafts, 6}, {seedling().model, seedling().runtime, &seedling().tokenizer, &session});
    session.append(prompt);
    Sampler sampler;
    return generate(session, seedling().tokenizer, sampler, prompt, options, nullptr, &drafter);
  };
  const Generated plain = generate_with({"none"}), drafted = generate_with({trained("heads")});
  EXPECT_EQ(plain.tokens, drafted.tokens);
  EXPECT_GT(drafted.drafts.proposed(), 30);
}

TEST(Generation, AFailedTextOfABatchEndsAlone) {
  std::mt19937 random(test::seed(6));
  const TextCase text{&seedling(), prompt_of(seedling(), random), sampling_cases()[0], {}, 0, 40};
  const Outcome plain = generate_all({&text, 1}, {"none"})[0];
  const auto engine = std::make_shared<Engine>(seedling().model, seedling().runtime);
  StopToken stop;
  TextCase stopped = text;
  stopped.session.stop = &stop;
  Text good(text, {"auto"}, engine, 5), bad(stopped, {"auto"}, engine, 5);
  Generation* const both[] = {good.generation.get(), bad.generation.get()};
  for (int i = 0; !good.generation->ended(); ++i) {
    if (i == 3) stop.request_stop();
    Generation::advance(both);
  }
  EXPECT_EQ(good.generation->finish().tokens, plain.tokens);
  const Generated part = bad.generation->finish();
  EXPECT_EQ(part.stop, StopReason::kInterrupted);
  EXPECT_TRUE(std::equal(part.tokens.begin(), part.tokens.end(), plain.tokens.begin()));
  EXPECT_LT(part.tokens.size(), plain.tokens.size());
}

TEST(Generation, AutoTurnsItselfOffWhereDraftsDoNotWork) {
  const auto engine = std::make_shared<Engine>(seedling().model, seedling().runtime);
  const auto setup = [&](Session& session) {
    return DraftSetup{seedling().model, seedling().runtime, &seedling().tokenizer, &session};
  };
  Session em_llm(engine, {.attend = "em-llm"}), evicting(engine, {.evict = "h2o"}), dense(engine);
  EXPECT_FALSE(Drafter({{"auto"}}, setup(em_llm)));
  EXPECT_FALSE(Drafter({{"auto"}}, setup(evicting)));
  EXPECT_FALSE(Drafter({{"none"}}, setup(dense)));
  EXPECT_TRUE(Drafter({{"auto"}}, setup(dense)));
  EXPECT_THROW(Drafter({{"suffix"}}, setup(em_llm)), Error);
  EXPECT_THROW(Drafter({{"suffix"}}, setup(evicting)), Error);
  EXPECT_THROW(Drafter({{"sufix"}}, setup(dense)), Error);
  EXPECT_THROW(Drafter({{"suffix"}, 64}, setup(dense)), Error);
  EXPECT_THROW(Drafter({{"model:file=missing.gguf"}}, setup(dense)), Error);
}

TEST(Generation, ABestChainHasTheMostExpectedTokens) {
  Draft draft;
  draft.add(-1, 10, 0.4f);  // 0
  draft.add(-1, 11, 0.3f);  // 1
  draft.add(1, 12, 0.9f);   // 2: 0.3 + 0.27
  draft.add(0, 13, 0.2f);   // 3: 0.4 + 0.08
  draft.add(2, 14, 0.9f);   // 4
  const Draft chain = best_chain(draft);
  EXPECT_EQ(chain.tokens, (std::vector<int32_t>{11, 12, 14}));
  EXPECT_TRUE(chain.tree.is_chain());
}

}  // namespace
}  // namespace fathom
