// Beam search for continuations of a given length, ranked by ln p(tokens) + ln P(end after `length` tokens |
// tokens). The second term is an estimate without training. The probability h of an end is read from the logits
// after each prefix. The log-odds of h after later tokens are predicted by a first-order linear recurrence, which
// is fitted to the pairs (prefix, prefix and one token) that the search has read. P is then the product of 1 − h
// for the steps before the end and of h at the end. At the last step h is exact.
#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "decode/searches/search_run.h"

namespace fathom {
namespace {

constexpr double kMaxLogOdds = 60;

double softplus(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::fabs(x))); }

/// Returns ln(p / (1 − p)), limited to ±kMaxLogOdds.
double log_odds(double log_probability) {
  const double complement = -std::expm1(log_probability);
  if (complement <= 0) return kMaxLogOdds;
  return std::clamp(log_probability - std::log(complement), -kMaxLogOdds, kMaxLogOdds);
}

/// Predicts the log-odds of an end after the next token from those after a prefix: least squares, with the slope in
/// [0, 1].
class EndPredictor {
 public:
  void add(double x, double y) {
    ++count_;
    sum_x_ += x;
    sum_y_ += y;
    sum_xx_ += x * x;
    sum_xy_ += x * y;
  }
  /// Returns ln P(end after `steps` further tokens). now: log-odds of an end after no further token.
  double log_probability(double now, int64_t steps) const {
    double slope = 1, mean_x = now, mean_y = now;
    if (count_ > 0) {
      mean_x = sum_x_ / count_;
      mean_y = sum_y_ / count_;
      const double variance = sum_xx_ / count_ - mean_x * mean_x;
      slope = variance > 1e-9 ? std::clamp((sum_xy_ / count_ - mean_x * mean_y) / variance, 0.0, 1.0) : 0;
    }
    double sum = 0;
    for (int64_t s = 0; s < steps; ++s) {
      sum -= softplus(now);
      now = std::clamp(mean_y + slope * (now - mean_x), -kMaxLogOdds, kMaxLogOdds);
    }
    return sum - softplus(-now);
  }

 private:
  double count_ = 0, sum_x_ = 0, sum_y_ = 0, sum_xx_ = 0, sum_xy_ = 0;
};

struct ConditionalOptions {
  int64_t width, length, expand, repeat;
  double weight;
};

/// A prefix, the log-odds of an end after it, and its rank.
struct ConditionalBeam {
  SearchPath path{};
  double end_log_odds = 0;
  double score = 0;
};

/// A token that may extend a beam.
struct ConditionalExtension {
  size_t beam = 0;
  NextToken next;
  double log_probability = 0;  // of the extended prefix
};

class ConditionalBeamRun {
 public:
  ConditionalBeamRun(const SearchTask& task, const ConditionalOptions& options) : run_(task), options_(options) {
    const Tokenizer* tokenizer = task.tokenizer;
    if (!tokenizer || tokenizer->vocabulary().end_of_generation.empty())
      fail_usage("search method conditional-beam: this model has no end-of-generation token");
    if (options_.length > run_.max_tokens_before_end())
      fail_usage("search method conditional-beam: length=", options_.length, " exceeds the limit of ",
                 run_.max_tokens_before_end(), " tokens");
  }

  SearchResult run() {
    std::vector<ConditionalBeam> beams;
    beams.push_back({run_.start()});
    set_end(beams[0]);
    for (int64_t tokens = 1; tokens <= options_.length; ++tokens) beams = best_of(extended(beams), tokens);
    BestHypotheses found(static_cast<size_t>(options_.width));
    for (const ConditionalBeam& beam : beams) {
      const NextTokens next = run_.next(beam.path);
      if (const auto& end = next.end())
        found.add(beam.path.hypothesis(&*end, beam.path.log_probability + end->log_probability));
    }
    if (found.empty())
      fail("search method conditional-beam: found no continuation of ", options_.length, " tokens that can end");
    return run_.result(found.all());
  }

 private:
  /// Returns the most likely extensions of all beams, width · expand, and reads them.
  std::vector<ConditionalBeam> extended(std::vector<ConditionalBeam>& beams) {
    const auto count = static_cast<size_t>(options_.width * options_.expand);
    std::vector<ConditionalExtension> ranked;
    for (size_t b = 0; b < beams.size(); ++b) {
      NextTokens next = run_.next(beams[b].path);
      const size_t extra = options_.repeat > 0 ? beams[b].path.tokens.size() : 0;
      for (const NextToken& token : next.best(count + extra))
        if (!repeats_ngram(beams[b].path.tokens, token.token, options_.repeat))
          ranked.push_back({b, token, beams[b].path.log_probability + token.log_probability});
    }
    std::ranges::sort(ranked, [&](const ConditionalExtension& x, const ConditionalExtension& y) {
      if (x.log_probability != y.log_probability) return x.log_probability > y.log_probability;
      const auto& left = beams[x.beam].path.tokens;
      const auto& right = beams[y.beam].path.tokens;
      return left != right ? left < right : x.next.token < y.next.token;
    });
    if (ranked.size() > count) ranked.resize(count);
    std::vector<ConditionalBeam> children;
    std::vector<SearchPath*> paths;
    for (const ConditionalExtension& extension : ranked) {
      children.push_back({SearchRun::fork(beams[extension.beam].path)});
      children.back().path.take(extension.next);
    }
    std::vector<double> before(beams.size());
    std::ranges::transform(beams, before.begin(), &ConditionalBeam::end_log_odds);
    beams.clear();
    for (ConditionalBeam& child : children) paths.push_back(&child.path);
    run_.read(paths);
    for (size_t i = 0; i < children.size(); ++i) {
      set_end(children[i]);
      predictor_.add(before[ranked[i].beam], children[i].end_log_odds);
    }
    return children;
  }

  /// Returns the `width` beams with the largest ln p + weight · ln P.
  std::vector<ConditionalBeam> best_of(std::vector<ConditionalBeam> beams, int64_t tokens) const {
    for (ConditionalBeam& beam : beams)
      beam.score = beam.path.log_probability +
                   options_.weight * predictor_.log_probability(beam.end_log_odds, options_.length - tokens);
    std::ranges::sort(beams, [](const ConditionalBeam& a, const ConditionalBeam& b) {
      return a.score != b.score ? a.score > b.score : a.path.tokens < b.path.tokens;
    });
    if (std::ssize(beams) > options_.width) beams.resize(static_cast<size_t>(options_.width));
    return beams;
  }

  void set_end(ConditionalBeam& beam) const {
    const NextTokens next = run_.next(beam.path);
    beam.end_log_odds = next.end() ? log_odds(next.end()->log_probability) : -kMaxLogOdds;
  }

  SearchRun run_;
  const ConditionalOptions& options_;
  EndPredictor predictor_;
};

class ConditionalBeamSearch final : public Search {
 public:
  explicit ConditionalBeamSearch(const Values& values)
      : options_{.width = values.integer("width"),
                 .length = values.integer("length"),
                 .expand = values.integer("expand"),
                 .repeat = values.integer("repeat"),
                 .weight = values.number("weight")} {}
  SearchResult run(const SearchTask& task) const override { return ConditionalBeamRun(task, options_).run(); }

 private:
  ConditionalOptions options_;
};

std::vector<Parameter> conditional_beam_parameters() {
  using Type = Parameter::Type;
  return {
      {.name = "length",
       .type = Type::kInt,
       .default_value = "32",
       .summary = "tokens of each continuation, before the end",
       .min = 1,
       .max = 1e9},
      {.name = "width",
       .type = Type::kInt,
       .default_value = "4",
       .summary = "beams, and hypotheses returned; more finds likelier ones and takes more time",
       .min = 1,
       .max = 4096},
      {.name = "expand",
       .type = Type::kInt,
       .default_value = "2",
       .summary = "extensions read per beam, of which the best by the estimate are kept; 1 ignores the estimate",
       .min = 1,
       .max = 1024},
      {.name = "weight",
       .type = Type::kFloat,
       .default_value = "1",
       .summary = "factor of the estimated log-probability of an end at `length`; 0 only forbids earlier ends",
       .min = 0,
       .max = 100},
      {.name = "repeat",
       .type = Type::kInt,
       .default_value = "0",
       .summary = "no n-gram of this many tokens occurs twice in a continuation; 0: no condition",
       .min = 0,
       .max = 1e6}};
}

}  // namespace

SearchEntry conditional_beam_search_method() {
  return {{.name = "conditional-beam",
           .summary = "beam search for continuations that end after exactly `length` tokens, with a calibrated "
                      "estimate of the probability of that end; no trained classifier",
           .paper = "Making the Most of your Model: Methods for Finetuning and Applying Pretrained Transformers, "
                    "2024",
           .needs = "any model",
           .time = "width · expand rows per token",
           .memory = "O(width · expand · (length + v))",
           .parameters = conditional_beam_parameters()},
          [](const Values& values) { return std::make_unique<ConditionalBeamSearch>(values); }};
}

}  // namespace fathom
