#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/spec.h"
#include "decode/draft.h"
#include "decode/logarithms.h"
#include "decode/verify.h"
#include "models/tiny_model.h"
#include "session/session.h"
#include "written_file.h"

namespace fathom::test {

/// Returns a runtime with one thread that all tests share.
inline std::shared_ptr<Runtime> draft_runtime() {
  static const auto shared = std::make_shared<Runtime>(1);
  return shared;
}

/// Writes a model file, which exists until the process ends, and returns its path.
inline std::string write_model(const TinyFile& file, const std::string& name) {
  return write_file(file.bytes(), name);
}

/// Returns the file of test::floats().
inline std::string floats_path() {
  static const std::string path = write_model({}, "floats");
  return path;
}
/// Returns the file of a smaller model with the same vocabulary, and the same embeddings.
inline std::string small_path() {
  static const std::string path = write_model({.layers = 1}, "small");
  return path;
}

inline std::vector<int32_t> random_tokens(std::mt19937& random, int64_t n) {
  std::vector<int32_t> tokens(n);
  for (int32_t& token : tokens) token = static_cast<int32_t>(random() % 512);
  return tokens;
}

/// The result of decoding with drafts.
struct DraftRun {
  std::vector<int32_t> tokens{};  // generated
  int64_t forwards = 0, drafted = 0, accepted = 0;
};

/// Lets a session that holds the prompt keep the hidden states that a source needs.
inline void keep_hidden(Session& session, const DraftSource& source, const std::vector<int32_t>& prompt) {
  const std::vector<int> layers = source.needs().hidden_layers;
  if (layers.empty()) return;
  session.keep_hidden(layers);
  session.rewind(1);
  session.append(std::span(prompt).last(1));
}

/// Continues a session that holds the prompt and its logits by at least n tokens.
inline DraftRun decode_with(Session& session, DraftSource& source, Sampler& sampler,
                            const std::vector<int32_t>& prompt, int64_t n, int nodes = 63) {
  DraftRun run;
  std::vector<int32_t> history = prompt;
  keep_hidden(session, source, prompt);
  source.start(prompt);
  history.push_back(sampler.sample(session.logits(), history, session.length()));
  while (std::ssize(history) < std::ssize(prompt) + n) {
    const int64_t position = session.length() + 1, before = std::ssize(history);
    const Draft draft = source.propose({.tokens = history,
                                        .prompt = std::ssize(prompt),
                                        .sampler = &sampler,
                                        .position = position,
                                        .hidden = session.hidden()},
                                       nodes);
    EXPECT_LE(draft.size(), nodes);
    DraftTree tree;
    std::vector<int32_t> tokens{history.back()};
    std::vector<uint8_t> probes{0};
    tree.add(-1);
    for (int node = 0; node < draft.size(); ++node) {
      tree.add(draft.tree.parent(node) + 1);
      tokens.push_back(draft.tokens[node]);
      probes.push_back(draft.is_probe(node) ? draft.probes[node] : 0);
      run.drafted += !draft.is_probe(node);
    }
    const Session::Step step{&session, tokens, &tree, draft.transfer, probes};
    if (const std::exception_ptr error = Session::try_steps({&step, 1})[0]) std::rethrow_exception(error);
    const std::span<const float> rows = session.draft_logits();
    const auto vocabulary = static_cast<size_t>(session.model().config().vocabulary);
    const NodeLogits logits = [&](int node) { return rows.subspan((node + 1) * vocabulary, vocabulary); };
    const std::vector<int> accepted =
        verify(draft, logits, sampler, history, position, [](int32_t) { return true; });
    std::vector<int> path{0};
    for (const int node : accepted) path.push_back(node + 1);
    source.observe({.tokens = history,
                    .emitted = std::span(history).subspan(before),
                    .draft = &draft,
                    .accepted = accepted,
                    .root = tokens[0],
                    .hidden = session.draft_hidden(),
                    .logits = logits});
    session.accept(path);
    ++run.forwards;
    run.accepted += std::ssize(accepted);
  }
  run.tokens.assign(history.begin() + std::ssize(prompt), history.end());
  return run;
}

/// Returns the tokens of plain decoding, of a copy of the session.
inline std::vector<int32_t> decode_plainly(const Session& start, Sampler& sampler,
                                           const std::vector<int32_t>& prompt, int64_t n) {
  Session session = start.fork();
  std::vector<int32_t> history = prompt;
  for (int64_t i = 0; i < n; ++i) {
    history.push_back(sampler.sample(session.logits(), history, session.length()));
    session.append(std::span(history).last(1));
  }
  return {history.begin() + std::ssize(prompt), history.end()};
}

/// A Markov chain with five tokens: the distributions of the next token, by the newest one.
using Markov = std::vector<std::vector<double>>;

inline Markov random_markov(std::mt19937& random, double spread = 1.5, const Markov* near = nullptr) {
  std::normal_distribution<double> normal(0, spread);
  Markov chain(5, std::vector<double>(5));
  for (size_t row = 0; row < chain.size(); ++row) {
    double sum = 0;
    for (size_t i = 0; i < 5; ++i) sum += chain[row][i] = std::exp(normal(random)) * (near ? (*near)[row][i] : 1);
    for (double& p : chain[row]) p /= sum;
  }
  return chain;
}

/// Returns Pearson's statistic of counts for n trials divided by its limit for a false alarm of about 1 in 10^5;
/// cells expected less than 5 times are merged. Very large if tokens occur that cannot, or with fewer than 4 cells.
inline double chi_square_ratio(const std::map<std::vector<int32_t>, int64_t>& counts,
                               const std::map<std::vector<int32_t>, double>& expected, int64_t n) {
  double statistic = 0, rest = 0, rest_count = static_cast<double>(n);
  int cells = 0;
  for (const auto& [key, p] : expected) {
    const double e = p * static_cast<double>(n);
    if (e < 5) {
      rest += e;
      continue;
    }
    const auto found = counts.find(key);
    const double c = found == counts.end() ? 0 : static_cast<double>(found->second);
    rest_count -= c;
    statistic += (c - e) * (c - e) / e;
    ++cells;
  }
  if (rest >= 1) {
    statistic += (rest_count - rest) * (rest_count - rest) / rest;
    ++cells;
  } else if (rest_count > 12) {
    return 1e9;
  }
  if (cells < 4) return 1e9;  // too few for a test
  const double freedom = cells - 1;
  const double z = 4.27;  // Wilson-Hilferty approximation of the quantile
  const double cube = 1 - 2 / (9 * freedom) + z * std::sqrt(2 / (9 * freedom));
  return statistic / (freedom * cube * cube * cube);
}

/// Expects greedy decoding with a source to give the tokens of plain decoding. Prints the tokens per forward pass.
inline void expect_plain_tokens(Session& session, DraftSource& source, const std::vector<int32_t>& prompt,
                                const std::string& name) {
  Sampler sampler;
  const std::vector<int32_t> plain = decode_plainly(session, sampler, prompt, 40);
  DraftRun run = decode_with(session, source, sampler, prompt, 40);
  run.tokens.resize(40);
  EXPECT_EQ(run.tokens, plain) << name;
  std::printf("%s: %.2f tokens per forward\n", name.c_str(), 1 + static_cast<double>(run.accepted) / run.forwards);
}

}  // namespace fathom::test
