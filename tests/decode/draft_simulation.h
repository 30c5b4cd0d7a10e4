#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "decode/draft.h"
#include "models/tiny_model.h"

namespace fathom::test {

/// Makes a source of one method with the vocabulary of the tiny model, without session and tokenizer.
inline std::unique_ptr<DraftSource> make_source(std::string_view spec) {
  DraftSetup setup;
  setup.model = floats();
  return draft_methods().make(spec, setup);
}

/// A greedy model: returns the next token of a text.
using FakeTarget = std::function<int32_t(std::span<const int32_t> tokens)>;

/// Returns a target that writes the given tokens after a prompt of this length.
inline FakeTarget writes(std::vector<int32_t> output, size_t prompt) {
  return [output = std::move(output), prompt](std::span<const int32_t> tokens) {
    return output[(tokens.size() - prompt) % output.size()];
  };
}

struct SimulatedText {
  std::vector<int32_t> generated;
  std::vector<int> emitted;  // tokens of each forward pass
  int forwards() const { return static_cast<int>(emitted.size()); }
  double tokens_per_forward() const {
    int sum = 0;
    for (const int count : emitted) sum += count;
    return sum / static_cast<double>(emitted.size());
  }
};

/// Checks the promises of DraftSource::propose about a draft.
inline void check_draft(const Draft& draft, int nodes) {
  ASSERT_LE(draft.size(), nodes);
  ASSERT_EQ(std::ssize(draft.tokens), draft.size());
  ASSERT_EQ(std::ssize(draft.estimates), draft.size());
  std::set<std::pair<int, int32_t>> children;
  for (int i = 0; i < draft.size(); ++i) {
    ASSERT_GE(draft.tokens[i], 0);
    ASSERT_GT(draft.estimates[i], 0);
    ASSERT_LE(draft.estimates[i], 1);
    ASSERT_TRUE(children.insert({draft.tree.parent(i), draft.tokens[i]}).second) << "siblings hold one token";
  }
}

/// Returns the checked draft of a source after a text whose first `prompt` tokens are the prompt.
inline Draft propose_after(DraftSource& source, const std::vector<int32_t>& text, int nodes, int64_t prompt = 0) {
  const Draft draft = source.propose({text, prompt, nullptr, std::ssize(text)}, nodes);
  check_draft(draft, nodes);
  return draft;
}

/// Generates with a draft source as the engine does (rule kFixed, greedy). The first token is that of the prompt's
/// pass, which is not counted. Rows have the target's token first, then others in a fixed order.
inline SimulatedText simulate(DraftSource& source, const FakeTarget& target, const std::vector<int32_t>& prompt,
                              size_t count, int nodes, int32_t vocabulary = 512) {
  std::vector<int32_t> text = prompt;
  SimulatedText result;
  source.start(prompt);
  text.push_back(target(text));
  const int top_k = source.needs().top_k;
  while (text.size() < prompt.size() + count) {
    const Draft draft = source.propose({text, std::ssize(prompt), nullptr, std::ssize(text)}, nodes);
    check_draft(draft, nodes);
    std::vector<TokenLogit> top;
    for (int row = -1; row < draft.size() && top_k > 0; ++row) {
      std::vector<int32_t> path = text;
      if (row >= 0)
        for (const int node : draft.tree.path(row)) path.push_back(draft.tokens[node]);
      const int32_t best = target(path);
      for (int k = 0; k < top_k; ++k) top.push_back({(best + 7 * k) % vocabulary, static_cast<float>(-k)});
    }
    const int32_t root = text.back();
    const size_t before = text.size();
    std::vector<int> accepted;
    for (int node = -1;;) {
      text.push_back(target(text));
      node = draft.find_child(node, text.back());
      if (node < 0 || text.size() >= prompt.size() + count) break;
      accepted.push_back(node);
    }
    source.observe({.tokens = text,
                    .emitted = std::span(text).subspan(before),
                    .draft = &draft,
                    .accepted = accepted,
                    .root = root,
                    .top = top,
                    .top_k = top_k});
    result.emitted.push_back(static_cast<int>(text.size() - before));
  }
  source.finish(text);
  result.generated.assign(text.begin() + std::ssize(prompt), text.end());
  std::vector<int32_t> plain = prompt;
  while (plain.size() < text.size()) plain.push_back(target(plain));
  EXPECT_EQ(text, plain);
  return result;
}

/// Returns n random tokens below `alphabet`.
inline std::vector<int32_t> random_tokens(std::mt19937& random, size_t n, int32_t alphabet) {
  std::vector<int32_t> tokens(n);
  for (int32_t& token : tokens) token = static_cast<int32_t>(random() % alphabet);
  return tokens;
}

/// Returns text of a template of `fixed` tokens that is repeated with one random token after every eighth.
inline std::vector<int32_t> templated_tokens(std::mt19937& random, size_t n, size_t fixed, int32_t alphabet) {
  const std::vector<int32_t> form = random_tokens(random, fixed, alphabet);
  std::vector<int32_t> tokens;
  for (size_t i = 0; tokens.size() < n; ++i) {
    tokens.push_back(form[i % fixed]);
    if (i % 8 == 7) tokens.push_back(static_cast<int32_t>(random() % alphabet));
  }
  tokens.resize(n);
  return tokens;
}

}  // namespace fathom::test
