// RAPID: chunks of the prompt ranked by BM25, a drafter that reads only them, and the enriched target.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <numeric>

#include "base/error.h"
#include "decode/drafter.h"
#include "decode/drafts/rapid.h"
#include "decode/generate.h"
#include "default_model.h"
#include "drafting.h"
#include "seed.h"

namespace fathom {

namespace {

TEST(RapidChunks, ScoresEqualTheFormulaOfBm25) {
  // chunks of 4: {1 2 2 3} {4 4 4 4} {2 5 6 7} {1 8}
  const std::vector<int32_t> tokens{1, 2, 2, 3, 4, 4, 4, 4, 2, 5, 6, 7, 1, 8}, query{2, 1, 9, 2};
  const std::vector<double> scores = chunk_scores(tokens, 4, query);
  const double idf = std::log(1 + (4 - 2 + 0.5) / (2 + 0.5));  // 1 and 2 are each in two chunks
  const auto part = [](double n, double length) {
    return n * 2.2 / (n + 1.2 * (0.25 + 0.75 * length / 3.5));  // 3.5: mean length
  };
  ASSERT_EQ(scores.size(), 4);
  EXPECT_NEAR(scores[0], idf * (2 * part(2, 4) + part(1, 4)), 1e-12);
  EXPECT_EQ(scores[1], 0);
  EXPECT_NEAR(scores[2], idf * 2 * part(1, 4), 1e-12);
  EXPECT_NEAR(scores[3], idf * part(1, 2), 1e-12);
  EXPECT_EQ(best_chunks(scores, 2), (std::vector<int64_t>{0, 2}));
  EXPECT_EQ(best_chunks(scores, 9), (std::vector<int64_t>{0, 1, 2, 3}));
  EXPECT_EQ(best_chunks(std::vector<double>{1, 1, 2, 1}, 3), (std::vector<int64_t>{0, 1, 2}));
  EXPECT_TRUE(chunk_scores({}, 4, query).empty());
  EXPECT_EQ(chunk_scores(tokens, 100, {}), std::vector<double>{0});
}

TEST(RapidChunks, RareTokensOfTheQuestionFindTheirChunk) {
  std::mt19937 random(test::seed(1));
  for (int trial = 0; trial < 20; ++trial) {
    std::vector<int32_t> tokens(3000), question(8);
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i % 100);  // 30 equal chunks
    const auto chunk = static_cast<int64_t>(random() % 30);
    tokens[chunk * 100 + random() % 100] = 500;
    for (int32_t& token : question) token = static_cast<int32_t>(random() % 100);
    question[random() % 8] = 500;
    EXPECT_EQ(best_chunks(chunk_scores(tokens, 100, question), 1), std::vector{chunk});
  }
}

/// Returns softmax(logits).
std::vector<double> softmax(std::span<const float> logits) {
  std::vector<double> p;
  for (const float logit : logits) p.push_back(std::exp(logit));
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& x : p) x /= sum;
  return p;
}

TEST(RapidEnriched, EtaZeroIsTheTargetAndLargerOnesApproachTheDrafter) {
  std::mt19937 random(test::seed(2));
  std::normal_distribution<float> normal;
  for (int trial = 0; trial < 20; ++trial) {
    std::vector<float> logits(8);
    for (float& z : logits) z = normal(random);
    std::vector<TokenProbability> q;
    double sum = 0;
    for (int32_t id = 0; id < 8; ++id) {
      q.push_back({id, std::exp(2 * normal(random))});
      sum += q.back().probability;
    }
    for (TokenProbability& entry : q) entry.probability /= static_cast<float>(sum);
    EXPECT_EQ(enriched_logits(logits, q, 0), logits);
    const std::vector<double> p = softmax(logits);
    const std::vector<float> enriched = enriched_logits(logits, q, 3);
    float most = 0;
    for (const TokenProbability& entry : q) most = std::max(most, entry.probability);
    for (int32_t id = 0; id < 8; ++id) {
      const double shift = q[id].probability < 0.1f * most ? 0 : 3 * (q[id].probability - p[id]);
      EXPECT_NEAR(enriched[id], logits[id] + shift, 1e-5);
    }
  }
}

TEST(RapidEnriched, VerificationGivesTheEnrichedDistribution) {
  const std::vector<float> logits{1, 0, -1, 0.5f, -2};
  Draft draft;
  draft.kind = DraftKind::kIndependent;
  draft.distributions = {{{0, 0.1f}, {1, 0.4f}, {2, 0.3f}, {3, 0.1f}, {4, 0.1f}}, {}};
  const std::vector<double> target = softmax(enriched_logits(logits, draft.distributions[0], 5));
  std::map<std::vector<int32_t>, double> expected;
  for (int32_t id = 0; id < 5; ++id) expected[{id}] = target[id];
  std::map<std::vector<int32_t>, int64_t> counts;
  std::mt19937 random(test::seed(3));
  const std::vector<std::string> steps{"temperature:t=1"};
  const std::vector<double> weights{0.1, 0.4, 0.3, 0.1, 0.1};
  std::discrete_distribution<int32_t> draw(weights.begin(), weights.end());
  for (uint64_t trial = 0; trial < 5000; ++trial) {
    Draft drawn = draft;
    drawn.add(-1, draw(random));
    Sampler sampler(steps, trial);
    std::vector<int32_t> history{0};
    const std::vector<float> enriched = enriched_logits(logits, drawn.distributions[0], 5);
    verify(
        drawn, [&](int) { return std::span<const float>(enriched); }, sampler, history, 1,
        [](int32_t) { return false; });
    ++counts[{history[1]}];
  }
  EXPECT_LT(test::chi_square_ratio(counts, expected, 5000), 1);
}

class RapidDraft : public testing::Test {
 protected:
  static Session target(const std::vector<int32_t>& prompt) {
    Session session(test::floats(), test::draft_runtime(), {.cache = "f32"});
    session.append(prompt);
    return session;
  }
  static std::unique_ptr<DraftSource> source(Session& session, const std::string& text) {
    return draft_methods().make(
        text, DraftSetup{.model = test::floats(), .runtime = test::draft_runtime(), .session = &session});
  }
  std::mt19937 random_{test::seed(0)};
  std::vector<int32_t> prompt_ = test::random_tokens(random_, 400);
};

TEST_F(RapidDraft, TheWholePromptAndTheSameModelAreAlwaysAccepted) {
  for (const std::vector<std::string>& steps : {std::vector<std::string>{}, {"temperature:t=0.9", "top-k:k=5"}}) {
    for (const std::string text :
         {"rapid:confidence=0", "rapid:confidence=0,chunk=7,budget=1k,question=20,sink=0"}) {
      Session session = target(prompt_);
      Sampler sampler(steps, 4);
      const auto drafter = source(session, text);
      const test::DraftRun run = test::decode_with(session, *drafter, sampler, prompt_, 50);
      EXPECT_EQ(run.accepted, run.drafted);
      EXPECT_EQ(run.drafted, 10 * run.forwards) << "11 tokens per forward";
    }
  }
}

TEST_F(RapidDraft, GreedyTokensEqualPlainDecoding) {
  const std::vector<std::string> texts{"rapid:chunk=16,budget=64,question=32",
                                       "rapid:chunk=16,budget=64,question=32,confidence=0,length=3",
                                       "rapid:chunk=1,budget=1,question=1,sink=0,confidence=0.9",
                                       "rapid:chunk=32,budget=128,file=" + test::small_path()};
  for (const std::string& text : texts) {
    Session session = target(prompt_);
    test::expect_plain_tokens(session, *source(session, text), prompt_, text);
  }
}

TEST_F(RapidDraft, TheDrafterReadsSinkChunksAndQuestionInTheirOrder) {
  // the question shares rare tokens with chunk 5 of 20; a second model reads the expected text
  std::vector<int32_t> prompt = prompt_;
  for (int32_t& token : prompt) token %= 50;
  for (int i = 0; i < 4; ++i) prompt[8 + 5 * 16 + 3 + i] = prompt[390 + i] = 300 + i;
  std::vector<int32_t> text(prompt.begin(), prompt.begin() + 8);                      // sink
  text.insert(text.end(), prompt.begin() + 8 + 5 * 16, prompt.begin() + 8 + 6 * 16);  // chunk 5
  text.insert(text.end(), prompt.end() - 12, prompt.end());                           // question
  Session session = target(prompt), short_session = target(text);
  const auto drafter = source(session, "rapid:chunk=16,budget=16,question=12,sink=8,confidence=0,length=6");
  drafter->start(prompt);
  Sampler sampler;
  prompt.push_back(7);
  text.push_back(7);
  const Draft draft = drafter->propose({.tokens = prompt, .prompt = 400, .sampler = &sampler, .position = 401}, 63);
  short_session.append(std::span(text).last(1));
  EXPECT_EQ(draft.tokens, test::decode_plainly(short_session, sampler, text, 6));
}

TEST_F(RapidDraft, ReportsInvalidOptionsAndFiles) {
  Session session = target(prompt_);
  for (const char* text : {"rapid:chunk=0", "rapid:budget=0", "rapid:question=0", "rapid:length=64",
                           "rapid:confidence=2", "rapid:file=/no/such.gguf"})
    EXPECT_THROW(source(session, text), Error) << text;
  EXPECT_THROW(source(session, "rapid:file=" + test::write_model({.layers = 1, .vocabulary = 100}, "hundred")),
               Error);
}

/// Decodes greedily as `rapid` with `enrich` should: each token whose drafter distribution is known is the best one
/// of the pulled logits.
std::vector<int32_t> decode_enriched(const std::vector<int32_t>& prompt, const std::vector<int32_t>& selected,
                                     double eta, int length, size_t count) {
  const auto best = [](std::span<const float> logits) {
    return static_cast<int32_t>(std::ranges::max_element(logits) - logits.begin());
  };
  Session target(test::loaded().model, test::loaded().runtime), drafter = target.fork();
  target.append(prompt);
  drafter.append(selected);
  std::vector<int32_t> tokens{best(target.logits())};
  while (tokens.size() < count) {
    bool accepted = true;
    for (int depth = 0; accepted && depth <= length && tokens.size() < count; ++depth) {
      target.append(std::span(tokens).last(1));
      drafter.append(std::span(tokens).last(1));
      const std::vector<double> q = softmax({drafter.logits().begin(), drafter.logits().end()});
      std::vector<TokenProbability> known;
      for (size_t id = 0; id < q.size(); ++id)
        known.push_back({static_cast<int32_t>(id), static_cast<float>(q[id])});
      const bool drafted = depth < length;
      tokens.push_back(drafted ? best(enriched_logits(target.logits(), known, eta)) : best(target.logits()));
      accepted = drafted && tokens.back() == best(drafter.logits());
    }
  }
  return tokens;
}

TEST(RapidEnriched, TextIsThatOfPulledLogits) {
  std::string text;
  for (int i = 0; i < 12; ++i)
    text += "The door code of " + std::string(1, static_cast<char>('A' + i)) + " is " +
            std::to_string(4711 + 7 * i) + ". ";
  text += "The door code of B is";
  const std::vector<int32_t> prompt = test::loaded().tokenizer.encode(text);
  const std::span<const int32_t> question = std::span(prompt).last(8), document(prompt.data(), prompt.size() - 8);
  const int64_t chunk = best_chunks(chunk_scores(document, 24, question), 1)[0];
  std::vector<int32_t> selected(document.begin() + 24 * chunk,
                                document.begin() + std::min<int64_t>(24 * (chunk + 1), std::ssize(document)));
  selected.insert(selected.end(), question.begin(), question.end());
  std::vector<std::vector<int32_t>> texts;
  for (const int eta : {0, 30}) {
    Session session = test::read(text);
    const std::string method =
        "rapid:chunk=24,budget=24,question=8,sink=0,length=3,confidence=0,enrich=" + std::to_string(eta);
    Drafter drafter({{method}, 0},
                    {test::loaded().model, test::loaded().runtime, &test::loaded().tokenizer, &session});
    EXPECT_EQ(drafter.changes_text(), eta > 0);
    Sampler greedy;
    GenerateOptions options;
    options.max_tokens = 24;
    options.ignore_eos = true;
    texts.push_back(generate(session, test::loaded().tokenizer, greedy, prompt, options, nullptr, &drafter).tokens);
    EXPECT_EQ(texts.back(), decode_enriched(prompt, selected, eta, 3, 24)) << eta;
  }
  EXPECT_NE(texts[0], texts[1]);
}

TEST(RapidEnriched, WorksAlone) {
  Session session = test::read("A");
  EXPECT_THROW(Drafter({{"suffix", "rapid:enrich=5"}, 0},
                       {test::loaded().model, test::loaded().runtime, &test::loaded().tokenizer, &session}),
               Error);
}

}  // namespace
}  // namespace fathom
