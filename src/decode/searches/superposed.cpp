// Several drafts through one row per token. The row is the sum of the embeddings of the newest tokens of the
// drafts, weighted by the normalised probabilities of the drafts, so all drafts share one distribution of the next
// token. N-gram counts of the prompt and of an optional text decide which token suits which draft. The scores of
// drafts are no probabilities: each draft is read by the model at the end, and ranked by its true log-probability.
//
// The superposed rows attend to all tokens, whatever the --attend method; the final pass uses the session's
// methods.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "base/file_map.h"
#include "base/format.h"
#include "decode/searches/search_run.h"
#include "decode/superposition.h"

namespace fathom {
namespace {

constexpr size_t kMaxTextBytes = size_t{1} << 28;  // of the n-gram text

/// Counts of the n-grams of a text, n up to 6, by a sorted list of positions.
class NgramText {
 public:
  explicit NgramText(std::vector<int32_t> tokens) : tokens_(std::move(tokens)), starts_(tokens_.size()) {
    std::iota(starts_.begin(), starts_.end(), 0);
    std::ranges::sort(starts_, [&](int32_t a, int32_t b) {
      return std::ranges::lexicographical_compare(at(a, kNgramWeights.size() + 1), at(b, kNgramWeights.size() + 1));
    });
  }

  /// Returns Σ weight · P(token | last n − 1 tokens of `history`) over the orders n; 0 if no n-gram occurs.
  double probability(std::span<const int32_t> history, int32_t token) const {
    double sum = 0;
    for (size_t order = 0; order < kNgramWeights.size() && order + 1 <= history.size(); ++order) {
      std::vector<int32_t> ngram(history.end() - static_cast<int64_t>(order) - 1, history.end());
      const int64_t contexts = count(ngram) - (std::ranges::equal(at_end(ngram.size()), ngram) ? 1 : 0);
      ngram.push_back(token);
      if (contexts > 0)
        sum += kNgramWeights[order] * static_cast<double>(count(ngram)) / static_cast<double>(contexts);
    }
    return sum;
  }

 private:
  std::span<const int32_t> at(int32_t start, size_t n) const {
    const auto rest = std::span(tokens_).subspan(start);
    return rest.first(std::min(n, rest.size()));
  }
  std::span<const int32_t> at_end(size_t n) const { return std::span(tokens_).last(std::min(n, tokens_.size())); }
  int64_t count(std::span<const int32_t> ngram) const {
    const auto prefix = [&](int32_t start) { return at(start, ngram.size()); };
    const auto less = [](std::span<const int32_t> a, std::span<const int32_t> b) {
      return std::ranges::lexicographical_compare(a, b);
    };
    return std::ssize(std::ranges::equal_range(starts_, ngram, less, prefix));
  }

  std::vector<int32_t> tokens_;
  std::vector<int32_t> starts_;  // positions ordered by the 6 tokens from there
};

struct SuperposedOptions {
  int64_t drafts, top;
  double alpha, temperature;
  std::string file;
};

/// A draft: its tokens and the sum of its smoothed log-probabilities.
struct SuperposedDraft {
  std::vector<int32_t> tokens{};
  double score = 0;
  std::unique_ptr<ConstraintState> constraint{};
};

/// A finished draft. end: the token that ended it.
struct FinishedDraft {
  std::vector<int32_t> tokens;
  std::optional<int32_t> end;
};

/// A token that may extend a draft.
struct DraftExtension {
  size_t draft = 0;
  NextToken next;
  double score = 0;
};

class SuperposedRun {
 public:
  SuperposedRun(const SearchTask& task, const SuperposedOptions& options)
      : run_(task), options_(options), session_(*task.session) {
    if (session_.model().config().landmarks)
      fail_usage("search method superposed: this model was trained with landmarks, which cannot be superposed");
  }

  SearchResult run() {
    read_ngrams();
    Superposition superposition(session_);
    SuperposedDraft first;
    if (const Constraint* constraint = run_.task().constraint) first.constraint = constraint->start();
    std::vector<SuperposedDraft> drafts;
    drafts.push_back(std::move(first));
    std::vector<float> logits(session_.logits().begin(), session_.logits().end());
    for (int64_t tokens = 1;; ++tokens) {
      drafts = extend(std::move(drafts), logits);
      if (drafts.empty() || std::ssize(finished_) >= options_.drafts) break;
      if (tokens == run_.max_tokens()) {
        for (SuperposedDraft& draft : drafts) finished_.push_back({std::move(draft.tokens), {}});
        break;
      }
      logits = read(superposition, drafts);
    }
    BestHypotheses best(static_cast<size_t>(options_.drafts));
    for (const FinishedDraft& draft : finished_) best.add(rescore(draft));
    return run_.result(best.all());
  }

 private:
  void read_ngrams() {
    const std::span<const int32_t> prompt = run_.task().prompt;
    history_.assign(prompt.begin(), prompt.end());
    if (options_.alpha == 0) return;
    std::vector<int32_t> text;
    if (!options_.file.empty()) {
      const Tokenizer* tokenizer = run_.task().tokenizer;
      if (!tokenizer) fail_usage("search method superposed: file=", options_.file, " needs a tokenizer");
      const FileMap file(options_.file);
      if (file.bytes().size() > kMaxTextBytes)
        fail_usage("search method superposed: expected a file of at most ",
                   format_bytes(static_cast<double>(kMaxTextBytes)), ", found ",
                   format_bytes(static_cast<double>(file.bytes().size())), " in ", options_.file);
      text = tokenizer->encode(file.text(), {.add_bos_eos = false});
      text.push_back(kNoToken);  // no n-gram extends over it
    }
    text.insert(text.end(), prompt.begin(), prompt.end());
    ngrams_ = std::make_unique<NgramText>(std::move(text));
  }

  /// Returns the drafts extended by the best tokens. Of the best `drafts` extensions, those that end are finished.
  std::vector<SuperposedDraft> extend(std::vector<SuperposedDraft> drafts, std::span<const float> logits) {
    const auto width = static_cast<size_t>(options_.drafts);
    std::vector<DraftExtension> ranked;
    for (size_t d = 0; d < drafts.size(); ++d)
      for (const DraftExtension& extension : extensions(d, drafts[d], logits)) ranked.push_back(extension);
    std::ranges::sort(ranked, [&](const DraftExtension& a, const DraftExtension& b) {
      if (a.score != b.score) return a.score > b.score;
      const auto& left = drafts[a.draft].tokens;
      const auto& right = drafts[b.draft].tokens;
      return left != right ? left < right : a.next.token < b.next.token;
    });
    std::vector<SuperposedDraft> extended;
    for (size_t i = 0; i < ranked.size() && extended.size() < width; ++i) {
      const auto& [d, next, score] = ranked[i];
      const SuperposedDraft& draft = drafts[d];
      if (next.ends) {
        if (i < width) finished_.push_back({draft.tokens, next.token});
        continue;
      }
      SuperposedDraft& longer = extended.emplace_back();
      longer = {draft.tokens, score, draft.constraint ? draft.constraint->fork() : nullptr};
      longer.tokens.push_back(next.token);
      if (longer.constraint) longer.constraint->take(next.token);
    }
    return extended;
  }

  /// Returns the `top` most likely tokens after one draft with the scores of the extended drafts.
  std::vector<DraftExtension> extensions(size_t index, const SuperposedDraft& draft,
                                         std::span<const float> logits) {
    NextTokens next(logits, run_.task().tokenizer, draft.constraint.get());
    std::vector<NextToken> tokens = next.best(static_cast<size_t>(options_.top));
    if (next.end()) tokens.push_back(*next.end());
    std::ranges::sort(tokens, [](const NextToken& a, const NextToken& b) {
      return a.log_probability != b.log_probability ? a.log_probability > b.log_probability : a.token < b.token;
    });
    if (std::ssize(tokens) > options_.top) tokens.resize(static_cast<size_t>(options_.top));
    if (tokens.empty()) return {};
    double sum = 0;  // of the probabilities with the temperature, relative to the largest
    const auto tempered = [&](const NextToken& token) {
      return (token.log_probability - tokens[0].log_probability) / options_.temperature;
    };
    for (const NextToken& token : tokens) sum += std::exp(tempered(token));
    std::vector<int32_t> history(history_);
    history.insert(history.end(), draft.tokens.begin(), draft.tokens.end());
    std::vector<DraftExtension> all;
    for (const NextToken& token : tokens)
      all.push_back({index, token, draft.score + smoothed(tempered(token) - std::log(sum), history, token.token)});
    return all;
  }

  double smoothed(double log_p, std::span<const int32_t> history, int32_t token) const {
    if (!ngrams_) return log_p;
    return smooth_log_probability(log_p, ngrams_->probability(history, token), options_.alpha);
  }

  /// Reads the newest tokens of the drafts and returns the logits after them.
  std::vector<float> read(Superposition& superposition, std::span<const SuperposedDraft> drafts) {
    std::vector<int32_t> newest;
    std::vector<double> scores;
    for (const SuperposedDraft& draft : drafts) {
      newest.push_back(draft.tokens.back());
      scores.push_back(draft.score);
    }
    std::vector<float> logits = superposition.read(newest, scores);
    run_.count(1, 1);
    return logits;
  }

  /// Returns a draft with its true log-probability.
  Hypothesis rescore(const FinishedDraft& draft) {
    std::vector<int32_t> tokens = draft.tokens;
    if (draft.end) tokens.push_back(*draft.end);
    const double log_probability = run_.log_probability(tokens);
    return {draft.tokens, log_probability, log_probability, draft.end.has_value()};
  }

  SearchRun run_;
  const SuperposedOptions& options_;
  const Session& session_;
  std::vector<int32_t> history_;       // the prompt
  std::unique_ptr<NgramText> ngrams_;  // null: alpha is 0
  std::vector<FinishedDraft> finished_;
};

class SuperposedSearch final : public Search {
 public:
  explicit SuperposedSearch(const Values& values)
      : options_{.drafts = values.integer("k"),
                 .top = values.integer("top"),
                 .alpha = values.number("alpha"),
                 .temperature = values.number("temperature"),
                 .file = values.has("file") ? values.string("file") : ""} {}
  SearchResult run(const SearchTask& task) const override { return SuperposedRun(task, options_).run(); }

 private:
  SuperposedOptions options_;
};

std::vector<Parameter> superposed_parameters() {
  using Type = Parameter::Type;
  std::vector<Parameter> all = {
      {.name = "k", .type = Type::kInt, .default_value = "3", .summary = "drafts", .min = 1, .max = 256},
      {.name = "file",
       .type = Type::kString,
       .summary = "text whose n-grams are counted, in addition to the prompt's"}};
  const std::vector<Parameter> shared = superposition_parameters();
  all.insert(all.begin() + 1, shared.begin(), shared.end());
  return all;
}

}  // namespace

SearchEntry superposed_search_method() {
  return {{.name = "superposed",
           .summary = "k drafts for one row per token: reads weighted sums of embeddings, separates the drafts by "
                      "n-grams and ranks them by their true log-probabilities",
           .paper = "Superposed Decoding: Multiple Generations from a Single Autoregressive Inference Pass, 2024",
           .needs = "any model",
           .time = "1 row per token, then k passes over a draft; O(n log n) for the n-grams of n tokens",
           .memory = "O(max_tokens + n)",
           .parameters = superposed_parameters()},
          [](const Values& values) { return std::make_unique<SuperposedSearch>(values); }};
}

}  // namespace fathom
