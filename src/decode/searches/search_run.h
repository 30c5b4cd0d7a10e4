#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "decode/search.h"

namespace fathom {

/// A token that may follow, and its log-probability under the model.
struct NextToken {
  int32_t token = 0;
  double log_probability = 0;
  bool ends = false;  // whether it is an end-of-generation token
};

/// The tokens that may follow some logits. Log-probabilities are those of the softmax of all logits: they are not
/// renormalised over the tokens that a constraint allows.
class NextTokens {
 public:
  /// tokenizer null: no token ends a text. constraint null: none. Throws Error if a logit is NaN or +∞.
  NextTokens(std::span<const float> logits, const Tokenizer* tokenizer, const ConstraintState* constraint);

  /// Returns the n most likely tokens that do not end the text, best first; fewer if there are fewer with a
  /// probability above 0. Ties are ordered by id.
  std::vector<NextToken> best(size_t n);
  /// Returns the most likely end-of-generation token; nothing if none is allowed.
  const std::optional<NextToken>& end() const { return end_; }
  /// Returns the most likely token, which may end the text; nothing if no token is possible.
  std::optional<NextToken> greedy();
  /// Removes the tokens that do not rank after `last` in the order of best().
  void remove_through(const NextToken& last);

 private:
  double log_probability(const Candidate& candidate) const { return candidate.logit - log_sum_; }

  Candidates candidates_;  // without end-of-generation tokens: their logits are −∞
  double log_sum_ = 0;     // of all logits
  std::optional<NextToken> end_;
};

/// A continuation that a search extends.
struct SearchPath {
  std::vector<int32_t> tokens{};
  double log_probability = 0;                     // Σ ln p(token)
  std::unique_ptr<Session> session{};             // has read `tokens`, or all but the newest one
  std::unique_ptr<ConstraintState> constraint{};  // null: none

  /// Appends a token that does not end the text. The session reads it later (SearchRun::read).
  void take(const NextToken& next);
  /// Returns the hypothesis that ends after these tokens. end: the token that ends it; null: it is cut.
  Hypothesis hypothesis(const NextToken* end, double score) const;
};

/// The session, the limits and the counters of one search.
class SearchRun {
 public:
  /// Throws Error if the task has no session or the session has no logits, and Error (usage) for max_tokens < 1.
  explicit SearchRun(const SearchTask& task);

  const SearchTask& task() const { return task_; }
  /// Returns the most tokens of a hypothesis whose last token is not read. At least 1.
  int64_t max_tokens() const { return std::min(task_.max_tokens, readable_ + 1); }
  /// Returns the most tokens of a hypothesis whose last token is read, so that an end can follow it. At least 0.
  int64_t max_tokens_before_end() const { return std::min(task_.max_tokens, readable_); }

  /// Returns the path without tokens.
  SearchPath start() const;
  /// Returns a copy that shares pages.
  static SearchPath fork(const SearchPath& path);
  NextTokens next(const SearchPath& path) const {
    return {path.session->logits(), task_.tokenizer, path.constraint.get()};
  }
  /// Reads the newest token of each path, all in one batch. Throws the first error.
  void read(std::span<SearchPath* const> paths);
  /// Returns Σ ln p(token) of tokens after the prompt, at least one, which are read in one pass over a fork.
  double log_probability(std::span<const int32_t> tokens);
  /// Adds to the counters and reports progress.
  void count(int64_t tokens, int64_t forwards);
  int64_t tokens_read() const { return tokens_read_; }

  /// Returns the result. Throws Error if there is no hypothesis.
  SearchResult result(std::vector<Hypothesis> hypotheses) const;

 private:
  const SearchTask& task_;
  int64_t readable_ = std::numeric_limits<int64_t>::max() - 1;  // tokens until the context limit
  int64_t tokens_read_ = 0, forwards_ = 0;
};

/// The order of hypotheses: a larger score first, equal scores by token ids.
bool ranks_before(const Hypothesis& a, const Hypothesis& b);

/// Returns whether `token` after `tokens` repeats an n-gram of them. n 0: never.
bool repeats_ngram(std::span<const int32_t> tokens, int32_t token, int64_t n);

/// The best hypotheses found so far.
class BestHypotheses {
 public:
  explicit BestHypotheses(size_t capacity) : capacity_(capacity) {}
  void add(Hypothesis hypothesis);
  bool full() const { return hypotheses_.size() >= capacity_; }
  bool empty() const { return hypotheses_.empty(); }
  /// Returns the score that a further hypothesis must reach: −∞ until full.
  double bound() const { return full() ? hypotheses_.back().score : -std::numeric_limits<double>::infinity(); }
  const std::vector<Hypothesis>& all() const { return hypotheses_; }

 private:
  size_t capacity_;
  std::vector<Hypothesis> hypotheses_;  // best first
};

}  // namespace fathom
