#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "decode/methods.h"

namespace fathom {
namespace {

/// The resistance of a repeated n-gram by its length. A longer one is chosen only if nothing else is possible.
constexpr std::array<double, 6> kResistance{0, 1, 3, 4, 5, 5};
constexpr size_t kScanBlock = 64;  // tokens compared at once

/// Calls visit(i) for the indices of `token` in `tokens`, the last one first, until it returns false.
template <class Visit>
void visit_occurrences(std::span<const int32_t> tokens, int32_t token, const Visit& visit) {
  for (size_t end = tokens.size(); end > 0;) {
    const size_t begin = end - std::min(kScanBlock, end);
    int found = end - begin < kScanBlock ? 1 : 0;
    if (found == 0)
      for (const int32_t other : tokens.subspan(begin).first<kScanBlock>()) found |= other == token ? 1 : 0;
    for (size_t i = end; found != 0 && i-- > begin;)
      if (tokens[i] == token && !visit(i)) return;
    end = begin;
  }
}

/// Returns for each candidate the largest n ≤ longest such that the last n − 1 tokens of the history followed by
/// the candidate occur in the history; 0 if the candidate does not occur. A scan costs less than checking that a
/// stored index belongs to this history, so there is no index.
std::vector<int> repeated_lengths(std::span<const int32_t> history, std::span<const Candidate> candidates,
                                  int longest) {
  std::vector<int> lengths(candidates.size());
  for (size_t c = 0; c < candidates.size(); ++c) {
    visit_occurrences(history, candidates[c].id, [&](size_t) {
      lengths[c] = 1;
      return false;
    });
  }
  if (history.empty() || longest == 1) return lengths;
  const size_t last = history.size() - 1;
  visit_occurrences(history.first(last), history[last], [&](size_t i) {
    const auto follower = std::ranges::find(candidates, history[i + 1], &Candidate::id);
    if (follower == candidates.end()) return true;
    size_t matched = 1;  // tokens up to i that equal the end of the history
    while (matched + 1 < static_cast<size_t>(longest) && matched <= i &&
           history[i - matched] == history[last - matched])
      ++matched;
    int& length = lengths[follower - candidates.begin()];
    length = std::max(length, static_cast<int>(matched) + 1);
    return true;
  });
  return lengths;
}

/// Takes the token with the largest p − alpha·resistance among the k most likely ones.
class Momentum final : public SampleStep {
 public:
  Momentum(double alpha, int64_t k, int64_t n)
      : alpha_(alpha), k_(static_cast<size_t>(k)), longest_(static_cast<int>(n)) {}

  void apply(Candidates& candidates, std::span<const int32_t> history) const override {
    const double log_sum = candidates.log_sum();
    const std::span<const Candidate> best = candidates.best(k_);
    const std::vector<int> lengths = repeated_lengths(history, best, longest_);
    size_t chosen = 0;
    double highest = -std::numeric_limits<double>::infinity();
    for (size_t i = 0; i < best.size(); ++i) {
      const double p = std::exp(best[i].logit - log_sum);
      if (p == 0 && i > 0) break;  // masked tokens
      const double score = p - penalty(lengths[i]);
      if (score > highest) highest = score, chosen = i;
    }
    candidates.all()[0] = best[chosen];
    candidates.keep_first(1);
  }
  bool draws() const override { return false; }

 private:
  double penalty(int length) const {
    if (alpha_ == 0) return 0;
    return length < std::ssize(kResistance) ? alpha_ * kResistance[length]
                                            : std::numeric_limits<double>::infinity();
  }
  double alpha_;
  size_t k_;
  int longest_;
};

}  // namespace

SampleEntry momentum_method() {
  return {{"",
           "momentum",
           "the best of the k most likely tokens after a penalty that grows with the length of the n-gram it would "
           "repeat",
           "Momentum Decoding: Open-ended Text Generation As Graph Exploration, 2022",
           false,
           "any model",
           "O(v + k t) for t tokens",
           "none",
           {{"alpha",
             Parameter::Type::kFloat,
             "0.2",
             "strength of the penalty, in units of probability; more repeats less; 0 takes the most likely token",
             0,
             100,
             {}},
            {"k",
             Parameter::Type::kInt,
             "5",
             "most likely tokens to choose from; more leaves more ways out of a loop",
             1,
             100,
             {}},
            {"n",
             Parameter::Type::kInt,
             "5",
             "longest repeated n-gram that is distinguished; from 6 on, n-grams of 6 tokens are not repeated if "
             "another "
             "of the k tokens is possible",
             1,
             64,
             {}}}},
          [](const Values& values) {
            return std::make_unique<Momentum>(values.number("alpha"), values.integer("k"), values.integer("n"));
          }};
}

}  // namespace fathom
