#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "base/error.h"
#include "decode/logarithms.h"
#include "decode/random.h"
#include "decode/verify.h"
#include "seed.h"

namespace fathom {
namespace {

using Probabilities = std::vector<double>;
constexpr float kExcludedLogit = -std::numeric_limits<float>::infinity();
const std::vector<std::string> kPlainSteps = {"temperature:t=1"};

std::vector<TokenProbability> proposal(const Probabilities& q) {
  std::vector<TokenProbability> result;
  for (size_t i = 0; i < q.size(); ++i) result.push_back({static_cast<int32_t>(i), static_cast<float>(q[i])});
  return result;
}

/// Returns an index with probability proportional to its weight.
int pick(const Probabilities& weights, std::mt19937& random) {
  double left = std::uniform_real_distribution<double>(0, 1)(random);
  left *= std::accumulate(weights.begin(), weights.end(), 0.0);
  for (size_t i = 0; i < weights.size(); ++i) {
    left -= weights[i];
    if (left < 0) return static_cast<int>(i);
  }
  return static_cast<int>(weights.size()) - 1;
}

/// Returns k samples of q, with or without replacement, in the order of drawing.
std::vector<int> draw_children(Probabilities q, int k, bool replace, std::mt19937& random) {
  std::vector<int> children;
  for (int i = 0; i < k; ++i) {
    children.push_back(pick(q, random));
    if (!replace) q[children.back()] = 0;
  }
  return children;
}

struct Verified {
  std::vector<int> accepted;
  std::vector<int32_t> emitted;
};

Verified run(const Draft& draft, const NodeLogits& logits, Sampler& sampler, std::vector<int32_t> history = {},
             int64_t position = 0) {
  Verified result;
  result.accepted = verify(draft, logits, sampler, history, position, [&](int32_t token) {
    result.emitted.push_back(token);
    return true;
  });
  return result;
}

/// A model whose logits depend on the newest token alone.
struct MarkovModel {
  std::vector<std::vector<float>> rows;  // [vocabulary, vocabulary]

  static MarkovModel random(int vocabulary, double deviation, std::mt19937& random) {
    std::normal_distribution<float> normal(0, static_cast<float>(deviation));
    MarkovModel model;
    for (int i = 0; i < vocabulary; ++i) {
      model.rows.emplace_back(vocabulary);
      for (float& logit : model.rows.back()) logit = normal(random);
    }
    return model;
  }
  NodeLogits after(const Draft& draft, int32_t pending) const {
    return [this, &draft, pending](int node) -> std::span<const float> {
      return rows[node < 0 ? pending : draft.tokens[node]];
    };
  }
  /// Returns softmax(row · scale).
  Probabilities distribution(int32_t token, double scale = 1) const {
    Probabilities p;
    for (const float logit : rows[token]) p.push_back(std::exp(logit * scale));
    const double sum = std::accumulate(p.begin(), p.end(), 0.0);
    for (double& value : p) value /= sum;
    return p;
  }
};

// --- The rules on one node, against published and enumerated acceptance probabilities.

const Probabilities kP = {0.5, 0.3, 0.2}, kQ = {0.2, 0.5, 0.3};

/// Returns the frequencies of acceptance (last entry) and of the emitted tokens over `draws` drafts of k siblings.
Probabilities frequencies(DraftKind kind, int k, const Probabilities& p, const Probabilities& q, int draws,
                          uint32_t number) {
  std::mt19937 random(test::seed(number));
  const std::vector<float> logits = test::log_of(p);
  Probabilities counts(p.size() + 1);
  for (int i = 0; i < draws; ++i) {
    Draft draft;
    draft.kind = kind;
    for (const int token : draw_children(q, k, kind == DraftKind::kIndependent, random)) draft.add(-1, token);
    draft.distributions.resize(1 + draft.size());
    draft.distributions[0] = proposal(q);
    Sampler sampler(kPlainSteps, random());
    const Verified found = run(
        draft, [&](int) { return std::span(logits); }, sampler, {}, i);
    counts[found.emitted.front()] += 1.0 / draws;
    counts.back() += found.accepted.empty() ? 0 : 1.0 / draws;
  }
  return counts;
}

TEST(Verify, AcceptanceOfOneNodeMatchesPublishedProbabilities) {
  constexpr int kDraws = 40000;
  const auto bound = [](double p) { return 4.5 * std::sqrt(p * (1 - p) / kDraws) + 1e-9; };
  const auto expect = [&](DraftKind kind, int k, double acceptance, uint32_t number) {
    const Probabilities found = frequencies(kind, k, kP, kQ, kDraws, number);
    EXPECT_NEAR(found.back(), acceptance, bound(acceptance)) << k;
    for (size_t i = 0; i < kP.size(); ++i) EXPECT_NEAR(found[i], kP[i], bound(kP[i])) << k << " " << i;
  };
  expect(DraftKind::kIndependent, 1, 0.70, 1);
  expect(DraftKind::kIndependent, 2, 0.76, 2);
  expect(DraftKind::kWithoutReplacement, 1, 0.70, 3);
  expect(DraftKind::kWithoutReplacement, 2, 0.80857, 4);
  expect(DraftKind::kWithoutReplacement, 3, 1, 5);
}

/// Returns the exact probability that one of k siblings is accepted, as a sum over all draws.
double exact_acceptance(const Probabilities& p, const Probabilities& q, int k, bool replace) {
  const double total = std::accumulate(q.begin(), q.end(), 0.0);
  if (k == 0 || total < 1e-12) return 0;
  double sum = 0;
  for (size_t c = 0; c < q.size(); ++c) {
    if (q[c] == 0) continue;
    const double drawn = q[c] / total, accepted = std::min(1.0, p[c] / drawn);
    sum += drawn * accepted;
    if (accepted == 1) continue;
    Probabilities rest(p.size()), remaining = q;
    for (size_t i = 0; i < p.size(); ++i) rest[i] = std::max(0.0, p[i] - q[i] / total);
    const double mass = std::accumulate(rest.begin(), rest.end(), 0.0);
    for (double& value : rest) value /= mass;
    if (!replace) remaining[c] = 0;
    sum += drawn * (1 - accepted) * exact_acceptance(rest, remaining, k - 1, replace);
  }
  return sum;
}

TEST(Verify, AcceptanceAndTokensMatchExactSums) {
  constexpr int kDraws = 20000;
  EXPECT_NEAR(exact_acceptance(kP, kQ, 2, true), 0.76, 1e-12);
  EXPECT_NEAR(exact_acceptance(kP, kQ, 2, false), 0.80857, 1e-5);
  // In the first pair token 1 has more probability in the renormalised q than in the residual, so that q must be
  // renormalised after a rejection.
  const std::vector<std::pair<Probabilities, Probabilities>> pairs = {{{0, 0.45, 0.55, 0}, {0.45, 0.4, 0.05, 0.1}},
                                                                      {{0.1, 0.2, 0.3, 0.4}, {0.4, 0.3, 0.2, 0.1}}};
  uint32_t number = 40;
  for (const auto& [p, q] : pairs) {
    for (const DraftKind kind : {DraftKind::kIndependent, DraftKind::kWithoutReplacement}) {
      for (int k = 1; k <= 3; ++k) {
        const double acceptance = exact_acceptance(p, q, k, kind == DraftKind::kIndependent);
        const Probabilities found = frequencies(kind, k, p, q, kDraws, number++);
        EXPECT_NEAR(found.back(), acceptance, 4.5 * std::sqrt(acceptance * (1 - acceptance) / kDraws) + 1e-9) << k;
        for (size_t i = 0; i < p.size(); ++i)
          EXPECT_NEAR(found[i], p[i], 4.5 * std::sqrt(p[i] * (1 - p[i]) / kDraws) + 1e-9) << k << " " << i;
      }
    }
  }
}

TEST(Verify, FixedChildrenAreAcceptedWithTheirTotalProbability) {
  constexpr int kDraws = 40000;
  const std::vector<float> logits = test::log_of(kP);
  for (const std::vector<int32_t>& children : {std::vector<int32_t>{1}, {1, 2}}) {
    Draft draft;
    double acceptance = 0;
    for (const int32_t token : children) draft.add(-1, token), acceptance += kP[token];
    Sampler sampler(kPlainSteps, test::seed(6));
    int accepted = 0;
    for (int i = 0; i < kDraws; ++i)
      accepted += !run(
                       draft, [&](int) { return std::span(logits); }, sampler, {}, i)
                       .accepted.empty();
    EXPECT_NEAR(accepted / double{kDraws}, acceptance, 4.5 * std::sqrt(acceptance * (1 - acceptance) / kDraws));
  }
}

TEST(Verify, AllTokensWithoutReplacementAlwaysAccept) {
  const Probabilities p = {0.05, 0.15, 0.3, 0.1, 0.4}, q = {0.6, 0.1, 0.1, 0.19, 0.01};
  EXPECT_NEAR(frequencies(DraftKind::kWithoutReplacement, 5, p, q, 5000, 7).back(), 1, 1e-9);
}

// --- Whole trees on a Markov model.

constexpr int kTokens = 5;

/// Makes a draft that continues `pending`.
using MakeDraft = std::function<Draft(const MarkovModel& model, int32_t pending, std::mt19937& random)>;

/// Returns a tree of two levels with two children per node, drawn from `model` at temperature 1 / scale.
Draft drawn_tree(DraftKind kind, const MarkovModel& model, int32_t pending, std::mt19937& random,
                 double scale = 0.3) {
  Draft draft;
  draft.kind = kind;
  draft.distributions.resize(1);
  const auto extend = [&](int node, int32_t token) {
    const Probabilities q = model.distribution(token, scale);
    draft.distributions[1 + node] = proposal(q);
    for (const int child : draw_children(q, 2, kind == DraftKind::kIndependent, random)) draft.add(node, child);
    draft.distributions.resize(1 + draft.size());
  };
  extend(-1, pending);
  for (int root = 0; root < 2; ++root) extend(root, draft.tokens[root]);
  return draft;
}

/// Compares the first two tokens after a pending token with their exact distribution. Returns χ² as a value of the
/// standard normal distribution (Wilson and Hilferty 1931).
double deviation(const MakeDraft& make, const std::vector<std::string>& steps, int draws, uint32_t number) {
  std::mt19937 random(test::seed(number));
  const MarkovModel model = MarkovModel::random(kTokens, 1, random);
  const std::vector<int32_t> history = {3, 1};
  std::array<double, kTokens * kTokens> expected{}, counts{};
  Sampler exact(steps);
  const auto probabilities = [&](const std::vector<int32_t>& before) {
    const Candidates& candidates = exact.distribution(model.rows[before.back()], before);
    Probabilities p(kTokens);
    for (const Candidate& c : candidates.all()) p[c.id] = std::exp(c.logit - candidates.log_sum());
    return p;
  };
  const Probabilities first = probabilities(history);
  for (int a = 0; a < kTokens; ++a) {
    if (first[a] == 0) continue;
    const Probabilities second = probabilities({3, 1, a});
    for (int b = 0; b < kTokens; ++b) expected[a * kTokens + b] = draws * first[a] * second[b];
  }
  Sampler sampler(steps, random());
  const Draft none;
  for (int i = 0; i < draws; ++i) {
    const int64_t position = 2 * i;
    const Draft draft = make(model, history.back(), random);
    std::vector<int32_t> emitted =
        run(draft, model.after(draft, history.back()), sampler, history, position).emitted;
    if (emitted.size() == 1) {
      const int32_t next = emitted[0];
      emitted.push_back(run(none, model.after(none, next), sampler, {3, 1, next}, position + 1).emitted.front());
    }
    counts[emitted[0] * kTokens + emitted[1]] += 1;
  }
  double sum = 0, freedom = -1;
  for (size_t i = 0; i < counts.size(); ++i) {
    if (expected[i] == 0) {
      EXPECT_EQ(counts[i], 0) << "an impossible pair was emitted: " << i;
    } else {
      sum += std::pow(counts[i] - expected[i], 2) / expected[i];
      ++freedom;
    }
  }
  return (std::cbrt(sum / freedom) - 1 + 2 / (9 * freedom)) / std::sqrt(2 / (9 * freedom));
}

constexpr int kDraws = 40000;
constexpr double kLimit = 3.3;  // exceeded by 0.05 % of unbiased samples

TEST(Verify, DrawnTreesKeepTheDistributionOfAMarkovModel) {
  uint32_t number = 11;
  for (const double scale : {0.3, 2.0}) {  // flatter and sharper than the model
    for (const DraftKind kind : {DraftKind::kIndependent, DraftKind::kWithoutReplacement}) {
      const auto tree = [&](const MarkovModel& model, int32_t pending, std::mt19937& random) {
        return drawn_tree(kind, model, pending, random, scale);
      };
      EXPECT_LT(deviation(tree, kPlainSteps, kDraws, number++), kLimit) << scale;
    }
  }
}

TEST(Verify, DrawnTreesKeepTheDistributionAfterTruncationAndPenalties) {
  const auto independent = [](auto&&... args) { return drawn_tree(DraftKind::kIndependent, args...); };
  const auto distinct = [](auto&&... args) { return drawn_tree(DraftKind::kWithoutReplacement, args...); };
  const std::vector<std::string> steps = {"presence:penalty=1", "frequency:penalty=0.3", "top-p:p=0.8",
                                          "temperature:t=0.8"};
  EXPECT_LT(deviation(independent, steps, kDraws, 13), kLimit);
  EXPECT_LT(deviation(distinct, steps, kDraws, 14), kLimit);
}

TEST(Verify, ChiSquareTestRejectsWrongDrafts) {
  // Likely tokens instead of samples, and samples that are sorted after drawing.
  const auto best = [](const MarkovModel& model, int32_t pending, std::mt19937& random) {
    Draft draft = drawn_tree(DraftKind::kWithoutReplacement, model, pending, random);
    const Probabilities q = model.distribution(pending);
    draft.tokens[0] = static_cast<int32_t>(std::ranges::max_element(q) - q.begin());
    draft.tokens[1] = draft.tokens[0] == 0 ? 1 : 0;
    return draft;
  };
  const auto sorted = [](const MarkovModel& model, int32_t pending, std::mt19937& random) {
    Draft draft = drawn_tree(DraftKind::kWithoutReplacement, model, pending, random);
    const Probabilities q = model.distribution(pending);
    if (q[draft.tokens[0]] < q[draft.tokens[1]]) {
      std::swap(draft.tokens[0], draft.tokens[1]);
      std::swap(draft.distributions[1], draft.distributions[2]);
      for (int i = 0; i < 2; ++i) std::swap(draft.tokens[2 + i], draft.tokens[4 + i]);
    }
    return draft;
  };
  EXPECT_GT(deviation(best, kPlainSteps, kDraws / 2, 15), 3 * kLimit);
  EXPECT_GT(deviation(sorted, kPlainSteps, kDraws / 2, 16), 3 * kLimit);
}

/// After a rejection this rule draws from p instead of the residual.
std::vector<int32_t> verify_without_residual(const Draft& draft, const MarkovModel& model, int32_t pending,
                                             std::mt19937& random) {
  const Probabilities p = model.distribution(pending), q = model.distribution(pending, 0.3);
  for (int child = 0; child < 2; ++child) {
    const int32_t token = draft.tokens[child];
    if (std::uniform_real_distribution<double>(0, 1)(random) * q[token] < p[token]) return {token};
  }
  return {pick(p, random)};
}

TEST(Verify, ChiSquareTestRejectsAVerifierWithoutResiduals) {
  std::mt19937 random(test::seed(11));
  const MarkovModel model = MarkovModel::random(kTokens, 1, random);
  const Probabilities p = model.distribution(1);
  std::array<double, kTokens> wrong{}, right{};
  for (int i = 0; i < kDraws / 2; ++i) {
    const Draft draft = drawn_tree(DraftKind::kIndependent, model, 1, random);
    Sampler sampler(kPlainSteps, random());
    wrong[verify_without_residual(draft, model, 1, random).front()] += 1;
    right[run(draft, model.after(draft, 1), sampler).emitted.front()] += 1;
  }
  double wrong_sum = 0, right_sum = 0;
  for (int i = 0; i < kTokens; ++i) {
    const double expected = p[i] * (kDraws / 2);
    wrong_sum += std::pow(wrong[i] - expected, 2) / expected;
    right_sum += std::pow(right[i] - expected, 2) / expected;
  }
  EXPECT_LT(right_sum, 18.5) << "4 degrees of freedom, 0.1 %";
  EXPECT_GT(wrong_sum, 100);
}

// --- Fixed drafts: the tokens of plain sampling.

std::vector<int32_t> sample_plainly(const MarkovModel& model, Sampler& sampler, std::vector<int32_t> history,
                                    int tokens) {
  const size_t prompt = history.size();
  for (int i = 0; i < tokens; ++i)
    history.push_back(sampler.sample(model.rows[history.back()], history, std::ssize(history)));
  return {history.begin() + prompt, history.end()};
}

/// Returns a random tree that contains the first tokens of `truth` with probability `quality` each.
Draft random_tree(std::span<const int32_t> truth, int vocabulary, int nodes, double quality, std::mt19937& random) {
  Draft draft;
  for (int i = 0; i < nodes; ++i) {
    const int parent = std::uniform_int_distribution<int>(-1, i - 1)(random);
    const int depth = parent < 0 ? 0 : draft.tree.depth(parent) + 1;
    const bool known = depth < std::ssize(truth) && std::uniform_real_distribution<double>(0, 1)(random) < quality;
    draft.add(parent, known ? truth[depth] : std::uniform_int_distribution<int>(0, vocabulary - 1)(random));
  }
  return draft;
}

const std::vector<std::vector<std::string>> kChains = {
    {},
    {"repetition:penalty=1.5", "presence:penalty=1", "frequency:penalty=0.5"},
    kPlainSteps,
    {"top-p:p=0.7", "temperature:t=0.6"},
    {"repetition:penalty=1.3,window=8", "presence:penalty=0.7", "top-k:k=12", "top-p:p=0.9", "temperature:t=1.3"}};

TEST(Verify, FixedDraftsGiveTheTokensOfPlainSampling) {
  std::mt19937 random(test::seed(21));
  const int vocabulary = 40, length = 120;
  const MarkovModel model = MarkovModel::random(vocabulary, 1.5, random);
  for (const auto& steps : kChains) {
    Sampler plain(steps, 5), drafted(steps, 5);
    const std::vector<int32_t> prompt = {1, 2, 3};
    const std::vector<int32_t> expected = sample_plainly(model, plain, prompt, length + 70);
    std::vector<int32_t> history = prompt;
    int accepted = 0, forwards = 0;
    while (std::ssize(history) < length) {
      const size_t done = history.size() - prompt.size();
      const Draft draft =
          random_tree(std::span(expected).subspan(done), vocabulary, 1 + random() % 63, 0.6, random);
      std::vector<int32_t> emitted;
      const std::vector<int> path =
          verify(draft, model.after(draft, history.back()), drafted, history, std::ssize(history),
                 [&](int32_t token) { return emitted.push_back(token), true; });
      EXPECT_TRUE(draft.tree.is_path(path));
      EXPECT_EQ(emitted.size(), path.size() + 1);
      EXPECT_TRUE(std::ranges::equal(std::span(history).last(emitted.size()), emitted));
      for (size_t i = 0; i < path.size(); ++i) EXPECT_EQ(draft.tokens[path[i]], emitted[i]);
      accepted += static_cast<int>(path.size());
      ++forwards;
    }
    const std::span<const int32_t> found = std::span(history).subspan(prompt.size());
    EXPECT_TRUE(std::ranges::equal(found, std::span(expected).first(found.size())));
    EXPECT_GT(accepted, forwards) << "the drafts do not test acceptance";
  }
}

TEST(Verify, GreedySamplersIgnoreTheKindOfTheDraft) {
  std::mt19937 random(test::seed(22));
  const MarkovModel model = MarkovModel::random(kTokens, 1, random);
  for (const DraftKind kind : {DraftKind::kIndependent, DraftKind::kWithoutReplacement}) {
    for (int i = 0; i < 50; ++i) {
      const Draft draft = drawn_tree(kind, model, 2, random);
      Draft fixed = draft;
      fixed.kind = DraftKind::kFixed;
      Sampler sampler({}, i), other({}, i + 1000);
      const Verified found = run(draft, model.after(draft, 2), sampler, {2});
      const Verified expected = run(fixed, model.after(fixed, 2), other, {2});
      EXPECT_EQ(found.accepted, expected.accepted);
      EXPECT_EQ(found.emitted, expected.emitted);
      EXPECT_EQ(found.emitted, sample_plainly(model, sampler, {2}, static_cast<int>(found.emitted.size())));
    }
  }
}

/// Returns the draft with the children of each node in reverse order, and the new number of each node.
std::pair<Draft, std::vector<int>> reverse_siblings(const Draft& draft) {
  Draft result;
  std::vector<int> numbers(draft.size());
  const std::function<void(int, int)> copy = [&](int node, int to) {
    for (int child = draft.size() - 1; child > node; --child) {
      if (draft.tree.parent(child) != node) continue;
      numbers[child] = result.add(to, draft.tokens[child]);
      copy(child, numbers[child]);
    }
  };
  copy(-1, -1);
  return {result, numbers};
}

TEST(Verify, OrderOfSiblingsDoesNotChangeFixedDrafts) {
  std::mt19937 random(test::seed(23));
  const int vocabulary = 12;
  const MarkovModel model = MarkovModel::random(vocabulary, 1, random);
  for (const auto& steps : kChains) {
    for (int i = 0; i < 40; ++i) {
      Sampler sampler(steps, i);
      const std::vector<int32_t> expected = sample_plainly(model, sampler, {4}, 8);
      Draft draft;  // distinct siblings, so that the path is unique
      for (int n = 0; n < 30; ++n) {
        const int parent = std::uniform_int_distribution<int>(-1, n - 1)(random);
        const int depth = parent < 0 ? 0 : draft.tree.depth(parent) + 1;
        for (int32_t token = random() % 2 && depth < 8 ? expected[depth] : random() % vocabulary;; ++token) {
          if (draft.find_child(parent, token % vocabulary) >= 0) continue;
          draft.add(parent, token % vocabulary);
          break;
        }
      }
      const auto [reversed, numbers] = reverse_siblings(draft);
      const Verified found = run(draft, model.after(draft, 4), sampler, {4}, 1);
      const Verified other = run(reversed, model.after(reversed, 4), sampler, {4}, 1);
      EXPECT_EQ(found.emitted, other.emitted);
      ASSERT_EQ(found.accepted.size(), other.accepted.size());
      for (size_t k = 0; k < found.accepted.size(); ++k) EXPECT_EQ(numbers[found.accepted[k]], other.accepted[k]);
    }
  }
}

TEST(Verify, OracleDraftsOfDepthDGiveOneTokenMore) {
  std::mt19937 random(test::seed(24));
  const MarkovModel model = MarkovModel::random(30, 2, random);
  for (const auto& steps : kChains) {
    Sampler sampler(steps, 9);
    const std::vector<int32_t> expected = sample_plainly(model, sampler, {7}, 64);
    for (const int depth : {0, 1, 5, 63}) {
      Draft draft;
      for (int i = 0; i < depth; ++i) draft.add(i - 1, expected[i]);
      const Verified found = run(draft, model.after(draft, 7), sampler, {7}, 1);
      EXPECT_EQ(found.accepted.size(), depth);
      EXPECT_TRUE(std::ranges::equal(found.emitted, std::span(expected).first(depth + 1)));
    }
  }
}

TEST(Verify, WrongDraftsGiveOneToken) {
  std::mt19937 random(test::seed(25));
  const int vocabulary = 30;
  const MarkovModel model = MarkovModel::random(vocabulary, 2, random);
  for (const auto& steps : kChains) {
    Sampler sampler(steps, 9);
    const std::vector<int32_t> expected = sample_plainly(model, sampler, {7}, 1);
    Draft draft;
    for (int32_t token = 0; token < vocabulary; ++token) {
      if (token == expected[0]) continue;
      draft.add(-1, token);
      draft.add(draft.size() - 1, expected[0]);
    }
    const Verified found = run(draft, model.after(draft, 7), sampler, {7}, 1);
    EXPECT_TRUE(found.accepted.empty());
    EXPECT_EQ(found.emitted, expected);
  }
  // For drawn drafts: tokens that the sampler excludes.
  const std::vector<float> logits = {0, 1, kExcludedLogit, kExcludedLogit};
  for (const DraftKind kind : {DraftKind::kIndependent, DraftKind::kWithoutReplacement}) {
    Draft draft;
    draft.kind = kind;
    draft.add(-1, 2);
    draft.add(-1, 3);
    draft.distributions = {proposal({0, 0, 0.5, 0.5}), {}, {}};
    for (int i = 0; i < 100; ++i) {
      Sampler sampler(kPlainSteps, i);
      const Verified found = run(
          draft, [&](int) { return std::span(logits); }, sampler);
      EXPECT_TRUE(found.accepted.empty());
      EXPECT_LE(found.emitted.front(), 1);
    }
  }
}

TEST(Verify, ProbesAreNeverAccepted) {
  std::mt19937 random(test::seed(27));
  const MarkovModel model = MarkovModel::random(30, 2, random);
  Sampler sampler(kPlainSteps, 9);
  const std::vector<int32_t> expected = sample_plainly(model, sampler, {7}, 4);
  for (const bool also_candidate : {false, true}) {
    Draft draft;  // a probe that holds the next token, and possibly a candidate after it
    draft.add(-1, expected[0]);
    draft.add_probe(draft.add_probe(0, expected[1]), expected[2]);
    if (also_candidate) draft.add(0, expected[1]);
    std::vector<int32_t> history = {7};
    const std::vector<int> path =
        verify(draft, model.after(draft, 7), sampler, history, 1, [](int32_t) { return true; });
    EXPECT_EQ(path, also_candidate ? (std::vector<int>{0, 3}) : std::vector<int>{0});
    EXPECT_TRUE(std::equal(history.begin() + 1, history.end(), expected.begin()));
    EXPECT_EQ(std::ssize(history), 2 + std::ssize(path));
  }
}

TEST(Verify, EmitEndsTheWalkInsideThePath) {
  std::mt19937 random(test::seed(26));
  const MarkovModel model = MarkovModel::random(30, 2, random);
  Sampler sampler(kPlainSteps, 9);
  const std::vector<int32_t> expected = sample_plainly(model, sampler, {7}, 6);
  Draft draft;
  for (int i = 0; i < 6; ++i) draft.add(i - 1, expected[i]);
  for (size_t stop = 1; stop <= 6; ++stop) {
    std::vector<int32_t> history = {7};
    size_t emitted = 0;
    int rows = 0;
    const NodeLogits logits = model.after(draft, 7);
    const auto counted = [&](int node) { return ++rows, logits(node); };
    const std::vector<int> path =
        verify(draft, counted, sampler, history, 1, [&](int32_t) { return ++emitted < stop; });
    EXPECT_EQ(emitted, stop);
    EXPECT_EQ(path.size(), stop) << "the last emitted token is a node of the draft";
    EXPECT_EQ(history.size(), 1 + stop);
    EXPECT_EQ(rows, stop) << "no logits are read after the end";
  }
}

// --- Numerical edges of the residuals.

TEST(Verify, EqualDistributionsAcceptTheFirstChild) {
  // p and q differ by rounding only, so residuals are 0 or tiny.
  std::mt19937 random(test::seed(31));
  for (const DraftKind kind : {DraftKind::kIndependent, DraftKind::kWithoutReplacement}) {
    int accepted = 0;
    for (int i = 0; i < 2000; ++i) {
      const MarkovModel model = MarkovModel::random(8, 3, random);
      const Probabilities q = model.distribution(0);
      Draft draft;
      draft.kind = kind;
      draft.add(-1, pick(q, random));
      draft.distributions = {proposal(q), {}};
      Sampler sampler(kPlainSteps, i);
      accepted += run(draft, model.after(draft, 0), sampler).accepted.size() == 1;
    }
    EXPECT_GE(accepted, 1999);
  }
}

TEST(Verify, ZeroResidualAcceptsButNeverAnImpossibleToken) {
  const std::vector<float> certain = {kExcludedLogit, 0, kExcludedLogit};
  for (const DraftKind kind : {DraftKind::kIndependent, DraftKind::kWithoutReplacement}) {
    for (int i = 0; i < 200; ++i) {
      Draft draft;
      draft.kind = kind;
      // In double precision 1 + 1e-30 is 1, so p = q although token 2 has p = 0.
      draft.distributions = {{{1, 1.0f}, {2, 1e-30f}}, {}};
      draft.add(-1, i % 2 ? 1 : 2);
      Sampler sampler(kPlainSteps, i);
      const Verified found = run(
          draft, [&](int) { return std::span(certain); }, sampler);
      EXPECT_EQ(found.accepted.size(), i % 2);
      EXPECT_EQ(found.emitted.front(), 1);
    }
  }
}

TEST(Verify, ExhaustedProposalsEmitFromTheResidual) {
  // q covers tokens 0 and 1; both are drawn. The rest of p can only be reached from the residual.
  const Probabilities p = {0.1, 0.2, 0.3, 0.4}, q = {0.5, 0.5, 0, 0};
  Probabilities counts(4);
  constexpr int kRepeats = 40000;
  std::mt19937 random(test::seed(32));
  const std::vector<float> logits = test::log_of(p);
  for (int i = 0; i < kRepeats; ++i) {
    Draft draft;
    draft.kind = DraftKind::kWithoutReplacement;
    for (const int token : draw_children({0.5, 0.5}, 2, false, random)) draft.add(-1, token);
    draft.add(-1, 3);  // an underflowed probability of the source: 0 in its list
    draft.distributions = {proposal(q), {}, {}, {}};
    Sampler sampler(kPlainSteps, i);
    counts[run(
               draft, [&](int) { return std::span(logits); }, sampler)
               .emitted.front()] += 1;
  }
  double sum = 0;
  for (size_t i = 0; i < p.size(); ++i) sum += std::pow(counts[i] - kRepeats * p[i], 2) / (kRepeats * p[i]);
  EXPECT_LT(sum, 16.3) << "3 degrees of freedom, 0.1 %";
}

TEST(Verify, ProposedTokensOutsideTheVocabularyAreNotEmitted) {
  const std::vector<float> logits = {0, 0};
  Draft draft;
  draft.kind = DraftKind::kIndependent;
  draft.add(-1, 7);
  draft.distributions = {{{7, 1.0f}}, {}};
  for (int i = 0; i < 50; ++i) {
    Sampler sampler(kPlainSteps, i);
    EXPECT_LT(run(
                  draft, [&](int) { return std::span(logits); }, sampler)
                  .emitted.front(),
              2);
  }
}

TEST(Verify, DrawnDraftsRepeatForTheSameSeedAndPosition) {
  std::mt19937 random(test::seed(33));
  const MarkovModel model = MarkovModel::random(kTokens, 1, random);
  int differs = 0;
  for (int i = 0; i < 200; ++i) {
    const Draft draft = drawn_tree(DraftKind::kWithoutReplacement, model, 0, random);
    Sampler a(kPlainSteps, 3), b(kPlainSteps, 3), c(kPlainSteps, 4);
    b.sample(model.rows[1], {}, 55);
    const std::vector<int32_t> emitted = run(draft, model.after(draft, 0), a, {0}, i).emitted;
    EXPECT_EQ(emitted, run(draft, model.after(draft, 0), b, {0}, i).emitted);
    differs += emitted != run(draft, model.after(draft, 0), c, {0}, i).emitted;
  }
  EXPECT_GT(differs, 50);
}

TEST(Verify, MalformedDraftsAreErrorsThatNameTheDefect) {
  const std::vector<float> logits = {0, 0, 0};
  const auto expect_error = [&](const Draft& draft, const std::string& part) {
    Sampler sampler(kPlainSteps, 1);
    try {
      run(
          draft, [&](int) { return std::span(logits); }, sampler);
      FAIL() << "no error, expected " << part;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  };
  Draft draft;
  draft.kind = DraftKind::kWithoutReplacement;
  draft.add(-1, 1);
  expect_error(draft, "has 0 distributions");
  draft.probes = {1};
  expect_error(draft, "marks of probes");
  draft.probes = {};
  draft.distributions = {{{0, 0.5f}, {2, 0.5f}}, {}};
  expect_error(draft, "proposes token 1");
  draft.distributions[0] = {{0, 0.5f}, {1, 0.2f}};
  expect_error(draft, "sum 0.7");
  draft.distributions[0] = {{0, 1.5f}, {1, -0.5f}};
  expect_error(draft, "probability -0.5");
  draft.distributions[0] = {{0, 1.0f}, {1, std::numeric_limits<float>::quiet_NaN()}};
  expect_error(draft, "probability nan");
  draft.distributions[0] = {{1, 0.5f}, {1, 0.5f}};
  expect_error(draft, "token 1 twice");
  draft.distributions[0] = {};
  expect_error(draft, "proposes token 1");
  draft.tokens.push_back(0);
  expect_error(draft, "has 2 tokens");
}

TEST(Verify, NewRandomStreamsDoNotChangeTheTokensOfASeed) {
  EXPECT_EQ(random_bits(1, RandomStream::kToken, 2, 3), 10240744290557228159u);
  EXPECT_NE(random_bits(1, RandomStream::kToken, 2, 3), random_bits(1, RandomStream::kAccept, 2, 3));
  EXPECT_NE(random_bits(1, RandomStream::kAccept, 2, 0), random_bits(1, RandomStream::kResidual, 2, 0));
}

}  // namespace
}  // namespace fathom
