#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "decode/search.h"
#include "models/tiny_model.h"
#include "paths.h"
#include "tokens/vocabularies.h"

namespace fathom {

namespace test {

/// Returns the tokens of each hypothesis.
inline std::vector<std::vector<int32_t>> tokens_of(const SearchResult& result) {
  std::vector<std::vector<int32_t>> all;
  for (const Hypothesis& hypothesis : result.hypotheses) all.push_back(hypothesis.tokens);
  return all;
}

/// A model, its tokenizer and a session that has read a prompt.
struct SearchBench {
  std::shared_ptr<const Model> model;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::vector<int32_t> prompt;
  SessionOptions options{};
  int threads = 2;

  Session read() const {
    Session session(model, std::make_shared<Runtime>(threads), options);
    session.append(prompt);
    return session;
  }
  SearchTask task(Session& session, int64_t max_tokens) const {
    SearchTask task;
    task.session = &session;
    task.tokenizer = tokenizer.get();
    task.prompt = prompt;
    task.max_tokens = max_tokens;
    return task;
  }
  SearchResult run(const std::string& spec, int64_t max_tokens, const Constraint* constraint = nullptr) const {
    Session session = read();
    SearchTask task = this->task(session, max_tokens);
    task.constraint = constraint;
    return search_methods().make(spec)->run(task);
  }

  /// Returns ln softmax of the logits of a session, [vocabulary].
  static std::vector<double> log_softmax(const Session& session) {
    const auto logits = session.logits();
    double sum = 0;
    const double largest = *std::ranges::max_element(logits);
    for (const float logit : logits) sum += std::exp(logit - largest);
    std::vector<double> all;
    for (const float logit : logits) all.push_back(logit - largest - std::log(sum));
    return all;
  }
  /// Returns the log-probability of the most likely end of the text.
  double end_after(const std::vector<double>& log_p) const {
    double best = -INFINITY;
    for (const int32_t id : tokenizer->vocabulary().end_of_generation) best = std::max(best, log_p[id]);
    return best;
  }
  /// Returns the log-probability of tokens and of the end after them, reading them one by one.
  double log_probability(const std::vector<int32_t>& tokens, bool ended) const {
    Session session = read();
    double sum = 0;
    for (const int32_t token : tokens) {
      sum += log_softmax(session)[token];
      session.append({&token, 1});
    }
    return ended ? sum + end_after(log_softmax(session)) : sum;
  }
  /// Returns greedy tokens, without the end.
  std::vector<int32_t> greedy(int64_t max_tokens) const {
    Session session = read();
    std::vector<int32_t> tokens;
    while (std::ssize(tokens) < max_tokens) {
      const auto logits = session.logits();
      const auto token = static_cast<int32_t>(std::ranges::max_element(logits) - logits.begin());
      if (tokenizer->ends_generation(token)) break;
      tokens.push_back(token);
      session.append({&token, 1});
    }
    return tokens;
  }
};

/// The default model after a text.
inline SearchBench house(const std::string& text) {
  static const auto model = Model::open(seedling_path());
  static const auto tokenizer = std::make_shared<const Tokenizer>(Vocabulary::read(*model->file()));
  return {.model = model, .tokenizer = tokenizer, .prompt = tokenizer->encode(text)};
}

/// Returns a random float model with 2 layers.
inline std::shared_ptr<const Model> random_model(int64_t vocabulary) {
  TinyFile file;
  file.layers = 2;
  file.width = 32;
  file.heads = file.kv_heads = 2;
  file.ffn = 48;
  file.vocabulary = vocabulary;
  return open_tiny(file);
}

/// A random model with a SentencePiece vocabulary of bytes and a few words; token 2 ends the text.
inline SearchBench words() {
  Vocabulary pieces = sentence_pieces(
      {"▁red", "▁blue", "▁green", "stone", "grass", "sky", "▁old", "▁sea", "ing", "er", "▁on", "▁the"});
  pieces.end_of_generation = {2};
  auto tokenizer = std::make_shared<const Tokenizer>(std::move(pieces));
  static const auto model = random_model(tokenizer->size());
  return {.model = model,
          .tokenizer = tokenizer,
          .prompt = tokenizer->encode("the old sea on red stone"),
          .options = {.cache = "f32"}};
}

/// A random model with `vocabulary` tokens. ends: whether token 0 ends the text.
inline SearchBench tiny(int64_t vocabulary, bool ends = true) {
  Vocabulary pieces;
  for (int64_t id = 0; id < vocabulary; ++id) pieces.pieces.push_back(std::string(1, static_cast<char>('a' + id)));
  if (ends) pieces.end_of_generation = {0};
  return {.model = random_model(vocabulary),
          .tokenizer = std::make_shared<const Tokenizer>(std::move(pieces)),
          .prompt = {1, 2, 3, 1},
          .options = {.cache = "f32"}};
}

/// Calls visit(tokens, log-probability, ended) for all continuations of at most `limit` tokens after those that the
/// session has read: those that end with token 0 (if `ends`), and those that are cut.
template <class Visit>
void enumerate(const Session& session, int64_t limit, bool ends, std::vector<int32_t>& tokens, double sum,
               const Visit& visit) {
  const std::vector<double> log_p = SearchBench::log_softmax(session);
  for (int32_t token = 0; token < std::ssize(log_p); ++token) {
    if (ends && token == 0) {
      visit(tokens, sum + log_p[0], true);
      continue;
    }
    tokens.push_back(token);
    if (std::ssize(tokens) == limit) {
      visit(tokens, sum + log_p[token], false);
    } else {
      Session next = session.fork();
      next.append({&token, 1});
      enumerate(next, limit, ends, tokens, sum + log_p[token], visit);
    }
    tokens.pop_back();
  }
}

/// Allows a set of tokens.
class AllowedTokens final : public Constraint {
 public:
  explicit AllowedTokens(std::set<int32_t> tokens) : tokens_(std::move(tokens)) {}
  std::unique_ptr<ConstraintState> start() const override { return std::make_unique<State>(tokens_); }

 private:
  struct State final : ConstraintState {
    explicit State(const std::set<int32_t>& allowed) : tokens(allowed) {}
    std::unique_ptr<ConstraintState> fork() const override { return std::make_unique<State>(tokens); }
    void restrict(Candidates& candidates) const override {
      const auto all = candidates.all();
      const auto kept = std::ranges::partition(all, [&](const Candidate& c) { return tokens.contains(c.id); });
      candidates.keep_first(all.size() - kept.size());
    }
    void take(int32_t token) override {
      if (!tokens.contains(token)) throw Error("the token is not allowed");
    }
    const std::set<int32_t>& tokens;
  };
  std::set<int32_t> tokens_;
};

}  // namespace test
}  // namespace fathom
