// Drafts with a model that reads only the parts of the prompt that are relevant for its end.
#include "decode/drafts/rapid.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <numeric>
#include <string>

#include "base/common_parameters.h"
#include "base/error.h"
#include "decode/drafts/draft_model.h"
#include "decode/drafts/grow.h"

namespace fathom {

std::vector<double> chunk_scores(std::span<const int32_t> tokens, int64_t chunk, std::span<const int32_t> query) {
  constexpr double kK1 = 1.2, kB = 0.75;
  const int64_t chunks = (std::ssize(tokens) + chunk - 1) / chunk;
  std::vector<double> scores(chunks);
  if (chunks == 0) return scores;
  struct Term {
    double weight = 0;                           // occurrences in the query
    std::vector<std::pair<int64_t, int>> found;  // chunks that contain it, with the number of occurrences
  };
  std::map<int32_t, Term> terms;  // ordered, so that sums do not depend on the order of a hash table
  for (const int32_t token : query) ++terms[token].weight;
  for (int64_t i = 0; i < std::ssize(tokens); ++i) {
    const auto term = terms.find(tokens[i]);
    if (term == terms.end()) continue;
    auto& found = term->second.found;
    if (found.empty() || found.back().first != i / chunk) found.push_back({i / chunk, 0});
    ++found.back().second;
  }
  const double mean = static_cast<double>(tokens.size()) / static_cast<double>(chunks);
  for (const auto& [token, term] : terms) {
    const auto with = static_cast<double>(term.found.size());
    const double rarity = std::log(1 + (static_cast<double>(chunks) - with + 0.5) / (with + 0.5));
    for (const auto& [c, n] : term.found) {
      const auto length = static_cast<double>(std::min(chunk, std::ssize(tokens) - c * chunk));
      scores[c] += term.weight * rarity * n * (kK1 + 1) / (n + kK1 * (1 - kB + kB * length / mean));
    }
  }
  return scores;
}

std::vector<int64_t> best_chunks(std::span<const double> scores, int64_t count) {
  std::vector<int64_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](int64_t a, int64_t b) { return scores[a] > scores[b]; });
  order.resize(std::min(count, std::ssize(order)));
  std::ranges::sort(order);
  return order;
}

std::vector<float> enriched_logits(std::span<const float> logits, std::span<const TokenProbability> q, double eta) {
  const float max = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - max);
  float most = 0;
  for (const TokenProbability& entry : q) most = std::max(most, entry.probability);
  std::vector<float> enriched(logits.begin(), logits.end());
  for (const TokenProbability& entry : q) {
    if (entry.probability < kLikelyShare * most) continue;
    const double p = std::exp(static_cast<double>(logits[entry.token]) - max) / sum;
    enriched[entry.token] += static_cast<float>(eta * (entry.probability - p));
  }
  return enriched;
}

namespace {

class RapidSource final : public DraftSource {
 public:
  RapidSource(const Values& values, const DraftSetup& setup)
      : chunk_(values.integer("chunk")),
        budget_(values.integer("budget")),
        question_(values.integer("question")),
        sink_(values.integer("sink")),
        length_(static_cast<int>(values.integer("length"))),
        confidence_(values.number("confidence")),
        enrich_(values.number("enrich")),
        rule_(read_rule(values)),
        tokenizer_(setup.tokenizer),
        model_(drafter(values, setup), setup.runtime, options(values, setup)) {}

  bool changes_text() const override { return enrich_ > 0; }

  void start(std::span<const int32_t> prompt) override {
    select(prompt);
    model_.follow(text_);
  }

  Draft propose(const DraftContext& context, int nodes) override {
    if (prompt_ != context.prompt) select(context.tokens.first(context.prompt));
    set_generated(context.tokens.subspan(prompt_));
    if (!model_.follow(text_)) return {};
    GrowthTask task = growth_task(context, nodes, rule_);
    task.expand = model_.expand({.sampler = context.sampler,
                                 .history = context.tokens,
                                 .tokenizer = tokenizer_,
                                 .rule = rule_,
                                 .position = context.position,
                                 .likely_share = enrich_ > 0 ? kLikelyShare : 0});
    Draft draft = grow_chain(task, length_, confidence_);
    if (enrich_ == 0) return draft;
    draft.pull = {enrich_, model_.likely()};
    draft.pull.likely.resize(1 + draft.size());  // the last node has none: its children were not drafted
    return draft;
  }

  void observe(const DraftOutcome& outcome) override {
    if (prompt_ < 0 || std::ssize(outcome.tokens) < prompt_) return;
    set_generated(outcome.tokens.subspan(prompt_));
    model_.keep(text_);
  }

 private:
  static std::shared_ptr<const Model> drafter(const Values& values, const DraftSetup& setup) {
    return values.has("file") ? open_draft_model("rapid", values.string("file"), setup) : setup.model;
  }
  static SessionOptions options(const Values& values, const DraftSetup& setup) {
    SessionOptions options;
    if (!setup.session) return options;
    options.stop = setup.session->options().stop;
    options.cache = setup.session->options().cache;
    if (values.has("file")) return options;
    options.position = setup.session->options().position;
    options.adapters = setup.session->options().adapters;
    return options;
  }

  /// Sets text_ to the first tokens of the prompt, the selected chunks and the question.
  void select(std::span<const int32_t> prompt) {
    prompt_ = std::ssize(prompt);
    const auto question = prompt.last(std::min(question_, prompt_));
    const auto before = prompt.first(prompt.size() - question.size());
    const auto sink = before.first(std::min(sink_, std::ssize(before)));
    const auto document = before.subspan(sink.size());
    text_.assign(sink.begin(), sink.end());
    const int64_t count = (budget_ + chunk_ - 1) / chunk_;
    for (const int64_t c : best_chunks(chunk_scores(document, chunk_, question), count)) {
      const auto chunk = document.subspan(c * chunk_).first(std::min(chunk_, std::ssize(document) - c * chunk_));
      text_.insert(text_.end(), chunk.begin(), chunk.end());
    }
    text_.insert(text_.end(), question.begin(), question.end());
    selected_ = text_.size();
  }

  void set_generated(std::span<const int32_t> tokens) {
    text_.resize(selected_);
    text_.insert(text_.end(), tokens.begin(), tokens.end());
  }

  int64_t chunk_, budget_, question_, sink_;
  int length_;
  double confidence_, enrich_;
  DraftRule rule_;
  const Tokenizer* tokenizer_;
  DraftModel model_;
  std::vector<int32_t> text_;  // what the drafter reads: parts of the prompt, then the generated tokens
  size_t selected_ = 0;        // number of tokens of these parts
  int64_t prompt_ = -1;        // number of tokens of the prompt; −1: none yet
};

}  // namespace

DraftEntry rapid_method() {
  using Type = Parameter::Type;
  return {
      {.name = "rapid",
       .summary = "a model drafts that reads only the chunks of the prompt with the words of its end (BM25)",
       .paper = "Long-Context Inference with Retrieval-Augmented Speculative Decoding, 2025",
       .exact = true,
       .needs = "any model",
       .time = "one pass over at most budget + question tokens, and one per drafted token",
       .memory = "a cache of budget + question + generated tokens",
       .parameters =
           {{.name = "file",
             .type = Type::kString,
             .summary = "model file (GGUF) of the drafter, with the same vocabulary; not given: the same model"},
            chunk_parameter({.value = "512", .min = 1, .summary = "tokens that are selected together"}),
            budget_parameter({.value = "8k", .min = 1, .summary = "tokens of the prompt that are selected"}),
            {.name = "question",
             .type = Type::kInt,
             .default_value = "128",
             .summary = "last tokens of the prompt: what chunks are selected for; always read",
             .min = 1,
             .max = 1e12},
            sink_parameter({.value = "16", .summary = "first tokens of the prompt, which are always read"}),
            {.name = "length",
             .type = Type::kInt,
             .default_value = "10",
             .summary = "tokens of a draft; more pays off if most are accepted",
             .min = 1,
             .max = DraftTree::kMaxNodes - 1},
            {.name = "confidence",
             .type = Type::kFloat,
             .default_value = "0.2",
             .summary = "a draft ends after a token with a lower probability; more: shorter drafts",
             .min = 0,
             .max = 1},
            {.name = "enrich",
             .type = Type::kFloat,
             .default_value = "0",
             .summary =
                 "above 0: pulls the model toward the drafter by this factor, which changes the text; 5 to 20 "
                 "for the same model, 40 to 50 for a larger drafter",
             .min = 0,
             .max = 1000},
            rule_parameter()}},
      [](const Values& values, const DraftSetup& setup) { return std::make_unique<RapidSource>(values, setup); }};
}

}  // namespace fathom
