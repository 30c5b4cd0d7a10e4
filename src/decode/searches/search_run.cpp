#include "decode/searches/search_run.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace fathom {
namespace {

constexpr float kImpossible = -std::numeric_limits<float>::infinity();

}  // namespace

NextTokens::NextTokens(std::span<const float> logits, const Tokenizer* tokenizer,
                       const ConstraintState* constraint) {
  candidates_.assign(logits);
  log_sum_ = candidates_.log_sum();
  if (constraint) constraint->restrict(candidates_);
  if (!tokenizer) return;
  const std::span<Candidate> all = candidates_.all();
  for (const int32_t id : tokenizer->vocabulary().end_of_generation) {
    const bool in_order = id >= 0 && id < std::ssize(all) && all[id].id == id;
    const auto found = in_order ? all.begin() + id : std::ranges::find(all, id, &Candidate::id);
    if (found == all.end() || found->logit == kImpossible) continue;
    const NextToken end{id, log_probability(*found), true};
    if (!end_ || end.log_probability > end_->log_probability) end_ = end;
    found->logit = kImpossible;
  }
}

std::vector<NextToken> NextTokens::best(size_t n) {
  std::vector<NextToken> tokens;
  for (const Candidate& candidate : candidates_.best(n)) {
    if (candidate.logit == kImpossible) break;
    tokens.push_back({candidate.id, log_probability(candidate), false});
  }
  return tokens;
}

std::optional<NextToken> NextTokens::greedy() {
  const std::vector<NextToken> first = best(1);
  if (first.empty()) return end_;
  const auto rank = [](const NextToken& t) { return std::pair(-t.log_probability, t.token); };
  return end_ && rank(*end_) < rank(first[0]) ? end_ : first[0];
}

void NextTokens::remove_through(const NextToken& last) {
  for (Candidate& candidate : candidates_.all()) {
    const double log_p = log_probability(candidate);
    const bool after = log_p != last.log_probability ? log_p < last.log_probability : candidate.id > last.token;
    if (!after) candidate.logit = kImpossible;
  }
}

void SearchPath::take(const NextToken& next) {
  tokens.push_back(next.token);
  log_probability += next.log_probability;
  if (constraint) constraint->take(next.token);
}

Hypothesis SearchPath::hypothesis(const NextToken* end, double score) const {
  return {tokens, log_probability + (end ? end->log_probability : 0), score, end != nullptr};
}

SearchRun::SearchRun(const SearchTask& task) : task_(task) {
  if (!task.session) fail("search: expected a session");
  if (task.session->logits().empty())
    fail("search: expected a session that has just read a prompt, found no logits");
  if (task.max_tokens < 1) fail_usage("search: expected at least 1 token per hypothesis, found ", task.max_tokens);
  if (const int64_t context = task.session->options().context; context > 0)
    readable_ = std::max<int64_t>(context - task.session->length(), 0);
}

SearchPath SearchRun::start() const {
  SearchPath path;
  path.session = std::make_unique<Session>(task_.session->fork());
  if (task_.constraint) path.constraint = task_.constraint->start();
  return path;
}

SearchPath SearchRun::fork(const SearchPath& path) {
  return {path.tokens, path.log_probability, std::make_unique<Session>(path.session->fork()),
          path.constraint ? path.constraint->fork() : nullptr};
}

void SearchRun::read(std::span<SearchPath* const> paths) {
  if (paths.empty()) return;
  std::vector<Session*> sessions;
  std::vector<int32_t> tokens;
  for (const SearchPath* path : paths) {
    sessions.push_back(path->session.get());
    tokens.push_back(path->tokens.back());
  }
  Session::step(sessions, tokens);
  count(std::ssize(paths), 1);
}

double SearchRun::log_probability(std::span<const int32_t> tokens) {
  const auto term = [](std::span<const float> logits, int32_t token) {
    Candidates candidates;
    candidates.assign(logits);
    return logits[token] - candidates.log_sum();
  };
  double sum = term(task_.session->logits(), tokens[0]);
  const std::span<const int32_t> read = tokens.first(tokens.size() - 1);
  if (read.empty()) return sum;
  Session reader = task_.session->fork();
  AppendOptions options;
  options.on_logits = [&](int64_t i, std::span<const float> logits) { sum += term(logits, tokens[i + 1]); };
  reader.append(read, options);
  count(std::ssize(read), 1);
  return sum;
}

void SearchRun::count(int64_t tokens, int64_t forwards) {
  tokens_read_ += tokens;
  forwards_ += forwards;
  if (task_.progress) task_.progress(tokens_read_);
}

SearchResult SearchRun::result(std::vector<Hypothesis> hypotheses) const {
  if (hypotheses.empty())
    fail("search: found no continuation, because the model gives each allowed one the probability 0");
  return {std::move(hypotheses), tokens_read_, forwards_};
}

bool ranks_before(const Hypothesis& a, const Hypothesis& b) {
  if (a.score != b.score) return a.score > b.score;
  return a.tokens != b.tokens ? a.tokens < b.tokens : a.ended && !b.ended;
}

bool repeats_ngram(std::span<const int32_t> tokens, int32_t token, int64_t n) {
  if (n < 1 || std::ssize(tokens) < n) return false;
  const std::span<const int32_t> newest = tokens.last(n - 1);
  for (int64_t i = 0; i + n <= std::ssize(tokens); ++i)
    if (tokens[i + n - 1] == token && std::ranges::equal(tokens.subspan(i, n - 1), newest)) return true;
  return false;
}

void BestHypotheses::add(Hypothesis hypothesis) {
  const auto at = std::ranges::upper_bound(hypotheses_, hypothesis, ranks_before);
  hypotheses_.insert(at, std::move(hypothesis));
  if (hypotheses_.size() > capacity_) hypotheses_.pop_back();
}

}  // namespace fathom
