// Collects different answers by telling the model which ones are known, instead of sampling less likely ones. An
// answer is one of the most likely first tokens, continued greedily to the end of the line. The answers found are
// listed in a text after the prompt, and the next ones are the most likely answers after that text. Each answer is
// read after the plain prompt at the end, for its log-probability.
#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/format.h"
#include "decode/searches/search_run.h"

namespace fathom {
namespace {

constexpr std::string_view kListMark = "{}";
constexpr std::string_view kLineEnd = "\\n";  // as specs spell it
constexpr std::string_view kSpace = " \t\r\n";

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(kSpace);
  return begin == text.npos ? "" : text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

/// Returns the first line of a text that is not blank, without spaces at its ends.
std::string_view first_line(std::string_view text) {
  text = trimmed(text);
  return trimmed(text.substr(0, text.find('\n')));
}

/// Returns whether a line that is not blank ends in the text.
bool has_line(std::string_view text) {
  const size_t begin = text.find_first_not_of(kSpace);
  return begin != text.npos && text.find('\n', begin) != text.npos;
}

/// Returns the text that a spec spells.
std::string with_line_ends(std::string text) {
  for (size_t at; (at = text.find(kLineEnd)) != std::string::npos;) text.replace(at, kLineEnd.size(), "\n");
  return text;
}

struct NavigationOptions {
  int64_t answers, per_round, ranks;
  double least;
  std::string wording;
};

/// An answer that is being read.
struct OpenAnswer {
  SearchPath path{};
  std::optional<NextToken> end{};  // the token that ended it
  bool done = false;
};

class NavigationRun {
 public:
  NavigationRun(const SearchTask& task, const NavigationOptions& options) : run_(task), options_(options) {
    if (!task.tokenizer) fail_usage("search method icn: expected a model with a tokenizer");
  }

  SearchResult run() {
    SearchPath start = run_.start();
    int64_t tokens = run_.max_tokens();
    while (collect(start, tokens) > 0 && std::ssize(found_) < options_.answers) {
      first_round_ = false;
      start = run_.start();
      tokens = read_list(start);
      if (tokens < 1) break;  // the list does not fit into the context
    }
    return run_.result(std::move(found_));
  }

 private:
  /// Finds new answers after `start`, at most `per_round`, and returns their number. They are read in batches of as
  /// many answers as are missing.
  int64_t collect(const SearchPath& start, int64_t max_tokens) {
    std::vector<NextToken> firsts = run_.next(start).best(static_cast<size_t>(options_.ranks));
    int64_t found = 0;
    for (size_t next = 0; next < firsts.size();) {
      const int64_t missing = std::min(options_.per_round - found, options_.answers - std::ssize(found_));
      if (missing == 0) break;
      const size_t count = std::min<size_t>(missing, firsts.size() - next);
      for (const OpenAnswer& answer : read_answers(start, std::span(firsts).subspan(next, count), max_tokens))
        found += add(answer) ? 1 : 0;
      next += count;
    }
    return found;
  }

  /// Continues each first token greedily to the end of the line, all in one batch per token.
  std::vector<OpenAnswer> read_answers(const SearchPath& start, std::span<const NextToken> firsts,
                                       int64_t max_tokens) {
    std::vector<OpenAnswer> answers;
    for (const NextToken& first : firsts) {
      OpenAnswer& answer = answers.emplace_back();
      answer.path = SearchRun::fork(start);
      take(answer, first, max_tokens);
    }
    while (true) {
      std::vector<SearchPath*> paths;
      for (OpenAnswer& answer : answers)
        if (!answer.done) paths.push_back(&answer.path);
      if (paths.empty()) return answers;
      run_.read(paths);
      for (OpenAnswer& answer : answers) {
        if (answer.done) continue;
        if (const auto next = run_.next(answer.path).greedy()) {
          take(answer, *next, max_tokens);
        } else {
          finish(answer);
        }
      }
    }
  }

  void take(OpenAnswer& answer, const NextToken& next, int64_t max_tokens) const {
    if (next.ends) {
      answer.end = next;
      answer.path.log_probability += next.log_probability;
      return finish(answer);
    }
    answer.path.take(next);
    if (std::ssize(answer.path.tokens) >= max_tokens || has_line(decode(answer.path.tokens))) finish(answer);
  }
  static void finish(OpenAnswer& answer) {
    answer.done = true;
    answer.path.session.reset();
  }
  std::string decode(std::span<const int32_t> tokens) const { return run_.task().tokenizer->decode(tokens); }

  /// Stores an answer unless it is blank, known or too unlikely. Returns whether it was stored.
  bool add(const OpenAnswer& answer) {
    const std::vector<int32_t>& tokens = answer.path.tokens;
    const std::string text(first_line(decode(tokens)));
    const int64_t length = std::ssize(tokens) + (answer.end ? 1 : 0);
    if (text.empty() || known_.contains(text)) return false;
    if (answer.path.log_probability < options_.least * static_cast<double>(length)) return false;
    std::vector<int32_t> read = tokens;
    if (answer.end) read.push_back(answer.end->token);
    // In the first round the prompt has no list, so the log-probability is that after the plain prompt.
    const double score = answer.path.log_probability, plain = first_round_ ? score : run_.log_probability(read);
    known_.insert(text);
    listed_.push_back(text);
    found_.push_back({tokens, plain, score, answer.end.has_value()});
    return true;
  }

  /// Reads the text that lists the known answers. Returns how many tokens an answer after it may have.
  int64_t read_list(SearchPath& start) {
    std::string text = options_.wording;
    text.replace(text.find(kListMark), kListMark.size(), comma_list(listed_));
    const std::vector<int32_t> tokens = run_.task().tokenizer->encode(text, {.add_bos_eos = false});
    const int64_t context = start.session->options().context;
    const int64_t left =
        context > 0 ? context - start.session->length() - std::ssize(tokens) + 1 : run_.max_tokens();
    if (left < 1) return 0;
    start.session->append(tokens);
    run_.count(std::ssize(tokens), 1);
    return std::min(left, run_.max_tokens());
  }

  SearchRun run_;
  const NavigationOptions& options_;
  bool first_round_ = true;
  std::set<std::string> known_;
  std::vector<std::string> listed_;  // in the order in which they were found
  std::vector<Hypothesis> found_;
};

class NavigationSearch final : public Search {
 public:
  explicit NavigationSearch(const Values& values)
      : options_{.answers = values.integer("n"),
                 .per_round = values.integer("m"),
                 .ranks = values.integer("ranks"),
                 .least = values.has("least") ? values.number("least") : -std::numeric_limits<double>::infinity(),
                 .wording = with_line_ends(values.string("wording"))} {
    if (options_.wording.find(kListMark) == std::string::npos)
      fail_usage("search method icn: expected {} in wording, for the list of answers, found ",
                 quote(options_.wording));
  }
  SearchResult run(const SearchTask& task) const override { return NavigationRun(task, options_).run(); }

 private:
  NavigationOptions options_;
};

std::vector<Parameter> icn_parameters() {
  using Type = Parameter::Type;
  return {{.name = "n", .type = Type::kInt, .default_value = "8", .summary = "answers", .min = 1, .max = 4096},
          {.name = "m",
           .type = Type::kInt,
           .default_value = "4",
           .summary = "answers per round; fewer re-reads the list more often and depends less on low ranks",
           .min = 1,
           .max = 1024},
          {.name = "ranks",
           .type = Type::kInt,
           .default_value = "20",
           .summary = "first tokens tried per round, the most likely ones",
           .min = 1,
           .max = 4096},
          {.name = "least",
           .type = Type::kFloat,
           .summary = "rejects answers with a lower mean log-probability per token after the list; a round without "
                      "new answers is the last one",
           .min = -1e6,
           .max = 0},
          {.name = "wording",
           .type = Type::kString,
           .default_value = "\nAnswers other than {}:",
           .summary = "text after the prompt that lists the known answers in place of {}; \\n is a line end"}};
}

}  // namespace

SearchEntry icn_search_method() {
  return {
      {.name = "icn",
       .summary = "in-context navigation: collects different answers by listing the known ones after the prompt",
       .paper = "Correlation and Navigation in the Vocabulary Key Representation Space of Language Models, 2024",
       .needs = "a model that follows instructions",
       .time = "n answers, in batches of m, and a list per round",
       .memory = "O(m · (max_tokens + v))",
       .parameters = icn_parameters()},
      [](const Values& values) { return std::make_unique<NavigationSearch>(values); }};
}

}  // namespace fathom
