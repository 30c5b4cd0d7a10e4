// Depth-first search for the most likely continuations. A prefix is not extended if its log-probability is below
// that of the worst of the best finished continuations, because further tokens only lower it.
#include <algorithm>
#include <optional>
#include <utility>

#include "base/error.h"
#include "decode/searches/search_run.h"

namespace fathom {
namespace {

struct ExactOptions {
  int64_t best, length, repeat, batch, max_reads;
  bool nonempty, cut, partial;
};

/// A prefix whose extensions are being searched.
struct OpenPrefix {
  SearchPath path;
  std::optional<NextToken> last{};  // the extension that was read last
  std::vector<SearchPath> read{};   // extensions that have been read but not searched, best last
};

class DepthFirstSearch {
 public:
  DepthFirstSearch(const SearchTask& task, const ExactOptions& options)
      : run_(task), options_(options), found_(static_cast<size_t>(options.best)) {
    limit_ = options_.cut ? run_.max_tokens() : run_.max_tokens_before_end();
    if (options_.length > 0) {
      if (options_.length > limit_)
        fail_usage("search method exact: length=", options_.length, " exceeds the limit of ", limit_, " tokens");
      limit_ = options_.length;
    }
    const Tokenizer* tokenizer = task.tokenizer;
    if (!options_.cut && (!tokenizer || tokenizer->vocabulary().end_of_generation.empty()))
      fail_usage(
          "search method exact: this model has no end-of-generation token, so no continuation ends: expected "
          "cut=true");
  }

  SearchResult run() {
    open(run_.start());
    while (!stack_.empty()) {
      OpenPrefix& prefix = stack_.back();
      if (prefix.read.empty() && !read_extensions(prefix)) {
        stack_.pop_back();
        continue;
      }
      if (stopped_) break;
      SearchPath path = std::move(prefix.read.back());
      prefix.read.pop_back();
      if (can_finish(path.log_probability)) open(std::move(path));
    }
    if (found_.empty() && !stopped_)
      fail("search method exact: no continuation of at most ", limit_, " tokens satisfies the conditions");
    return run_.result(found_.all());
  }

 private:
  bool can_finish(double log_probability) const { return log_probability >= found_.bound(); }
  bool may_end(int64_t tokens) const {
    if (options_.length > 0 ? tokens != options_.length : options_.nonempty && tokens == 0) return false;
    return !options_.cut || tokens < limit_;
  }
  bool is_cut(int64_t tokens) const { return options_.cut && tokens == limit_; }

  /// Adds the hypothesis that ends after `path`, and the path to the stack if it can be extended.
  void open(SearchPath path) {
    const int64_t tokens = std::ssize(path.tokens);
    if (may_end(tokens)) {
      const NextTokens next = run_.next(path);
      if (const auto& end = next.end())
        found_.add(path.hypothesis(&*end, path.log_probability + end->log_probability));
    }
    if (tokens < limit_) stack_.push_back({std::move(path)});
  }

  /// Reads the next extensions of a prefix. Returns false if none of the others can be part of a result.
  bool read_extensions(OpenPrefix& prefix) {
    while (prefix.read.empty() && !stopped_) {
      const std::vector<NextToken> tokens = next_extensions(prefix);
      if (tokens.empty()) return false;
      prefix.last = tokens.back();
      read_extensions(prefix, tokens);
    }
    return true;
  }

  /// Reads extensions of a prefix in one batch, or adds them as hypotheses if they are cut.
  void read_extensions(OpenPrefix& prefix, std::span<const NextToken> tokens) {
    const bool cut = is_cut(std::ssize(prefix.path.tokens) + 1);
    std::vector<SearchPath> paths;
    for (const NextToken& token : tokens) {
      if (repeats_ngram(prefix.path.tokens, token.token, options_.repeat)) continue;
      if (cut) {
        add_cut(prefix.path, token);
        continue;
      }
      if (run_.tokens_read() + std::ssize(paths) >= options_.max_reads) return stop_early();
      paths.push_back(SearchRun::fork(prefix.path));
      paths.back().take(token);
    }
    std::vector<SearchPath*> pointers;
    for (SearchPath& path : paths) pointers.push_back(&path);
    run_.read(pointers);
    std::ranges::reverse(paths);
    prefix.read = std::move(paths);
  }

  /// Returns the best `batch` extensions after the last one that was read, without those that are too unlikely.
  std::vector<NextToken> next_extensions(const OpenPrefix& prefix) const {
    NextTokens next = run_.next(prefix.path);
    if (prefix.last) next.remove_through(*prefix.last);
    std::vector<NextToken> tokens = next.best(static_cast<size_t>(options_.batch));
    std::erase_if(tokens, [&](const NextToken& token) {
      return !can_finish(prefix.path.log_probability + token.log_probability);
    });
    return tokens;
  }

  void add_cut(const SearchPath& path, const NextToken& token) {
    Hypothesis cut = path.hypothesis(nullptr, path.log_probability + token.log_probability);
    cut.tokens.push_back(token.token);
    cut.log_probability = cut.score;
    found_.add(std::move(cut));
  }

  void stop_early() {
    stopped_ = true;
    if (options_.partial && !found_.empty()) return;
    if (found_.empty())
      fail("search method exact: max_reads=", options_.max_reads,
           " tokens were read before any continuation satisfied the conditions: expected a larger max_reads or "
           "fewer tokens per hypothesis");
    fail("search method exact: max_reads=", options_.max_reads,
         " tokens were read and the search is not complete; the best continuation so far has log-probability ",
         found_.all()[0].score, ": expected a larger max_reads, or partial=true to return it");
  }

  SearchRun run_;
  const ExactOptions& options_;
  BestHypotheses found_;
  int64_t limit_ = 0;  // tokens of a hypothesis
  std::vector<OpenPrefix> stack_;
  bool stopped_ = false;
};

class ExactSearch final : public Search {
 public:
  explicit ExactSearch(const Values& values)
      : options_{.best = values.integer("best"),
                 .length = values.integer("length"),
                 .repeat = values.integer("repeat"),
                 .batch = values.integer("batch"),
                 .max_reads = values.integer("max_reads"),
                 .nonempty = values.boolean("nonempty"),
                 .cut = values.boolean("cut"),
                 .partial = values.boolean("partial")} {}
  SearchResult run(const SearchTask& task) const override { return DepthFirstSearch(task, options_).run(); }

 private:
  ExactOptions options_;
};

std::vector<Parameter> exact_parameters() {
  using Type = Parameter::Type;
  return {{.name = "best",
           .type = Type::kInt,
           .default_value = "1",
           .summary = "hypotheses returned; more takes longer",
           .min = 1,
           .max = 1024},
          {.name = "length",
           .type = Type::kInt,
           .default_value = "0",
           .summary = "tokens of the continuation; 0: any number",
           .min = 0,
           .max = 1e9},
          {.name = "repeat",
           .type = Type::kInt,
           .default_value = "0",
           .summary = "no n-gram of this many tokens occurs twice in the continuation; 0: no condition",
           .min = 0,
           .max = 1e6},
          {.name = "nonempty",
           .type = Type::kBool,
           .default_value = "false",
           .summary = "whether the continuation has at least one token"},
          {.name = "cut",
           .type = Type::kBool,
           .default_value = "false",
           .summary = "whether continuations that are cut at the token limit are searched too, not only those that "
                      "end"},
          {.name = "batch",
           .type = Type::kInt,
           .default_value = "4",
           .summary = "extensions of a prefix read at once; more reads more tokens in fewer passes",
           .min = 1,
           .max = 1024},
          {.name = "max_reads",
           .type = Type::kInt,
           .default_value = "100000",
           .summary = "tokens that may be read",
           .min = 1,
           .max = 1e12},
          {.name = "partial",
           .type = Type::kBool,
           .default_value = "false",
           .summary = "whether the best continuations found are returned after max_reads; false: an error"}};
}

}  // namespace

SearchEntry exact_search_method() {
  return {{.name = "exact",
           .summary = "the most likely continuations, by depth-first search with pruning; time grows exponentially "
                      "with the length",
           .paper = "Making the Most of your Model: Methods for Finetuning and Applying Pretrained Transformers, "
                    "2024",
           .needs = "any model",
           .time = "at most max_reads tokens",
           .memory = "O(max_tokens · batch · v)",
           .parameters = exact_parameters()},
          [](const Values& values) { return std::make_unique<ExactSearch>(values); }};
}

}  // namespace fathom
