#include "evict/keep_rule.h"

#include <algorithm>
#include <limits>

namespace fathom {
namespace {

constexpr double kEvenPart = 0.2;  // of its even part each head keeps at least: as published with AdaKV
constexpr float kMasked = -std::numeric_limits<float>::infinity();

/// Neighbours that stay or go together.
struct Unit {
  double score;  // the mean of those that are there
  int head;
  int64_t begin, end, count;  // tokens, and those of them that are there
};

bool better(const Unit& a, const Unit& b) {
  if (a.score != b.score) return a.score > b.score;
  return a.begin != b.begin ? a.begin > b.begin : a.head < b.head;
}

class Keeper {
 public:
  Keeper(std::span<const float> scores, int heads, const KeepRule& rule)
      : scores_(scores),
        rule_(rule),
        heads_(heads),
        tokens_(std::ssize(scores) / heads),
        keep_(scores.size()),
        held_(heads) {
    for (int h = 0; h < heads; ++h) {
      for (int64_t t = 0; t < tokens_; ++t) {
        if (t >= rule.sink && t < tokens_ - rule.window) continue;
        held_[h] += keep_[h * tokens_ + t] = there(h, t);
      }
    }
  }

  std::vector<char> run(int64_t budget) {
    std::vector<Unit> rest;
    for (int h = 0; h < heads_; ++h) {
      std::vector<Unit> units = units_of(h);
      std::ranges::sort(units, better);
      const auto least = static_cast<int64_t>(kEvenPart * static_cast<double>(budget));
      const size_t taken = take(units, held_[h], rule_.by_layer ? least : budget);
      rest.insert(rest.end(), units.begin() + static_cast<int64_t>(taken), units.end());
    }
    if (!rule_.by_layer) return std::move(keep_);
    std::ranges::sort(rest, better);
    int64_t held = 0;
    for (const int64_t own : held_) held += own;
    take(rest, held, budget * heads_);
    return std::move(keep_);
  }

 private:
  bool there(int head, int64_t token) const { return scores_[head * tokens_ + token] > kMasked; }

  /// Of the tokens that are not always kept.
  std::vector<Unit> units_of(int head) const {
    std::vector<Unit> units;
    const int64_t last = tokens_ - rule_.window;
    for (int64_t begin = rule_.sink; begin < last;) {
      const int64_t end = std::min((begin / rule_.block + 1) * rule_.block, last);
      Unit unit{0, head, begin, end, 0};
      for (int64_t t = begin; t < end; ++t) {
        if (!there(head, t)) continue;
        unit.score += scores_[head * tokens_ + t];
        ++unit.count;
      }
      unit.score /= static_cast<double>(std::max<int64_t>(1, unit.count));
      if (unit.count > 0) units.push_back(unit);
      begin = end;
    }
    return units;
  }

  /// Keeps units, best first, as long as no more than `budget` tokens are held; returns how many.
  size_t take(const std::vector<Unit>& units, int64_t& held, int64_t budget) {
    size_t taken = 0;
    for (; taken < units.size() && held + units[taken].count <= budget; ++taken) {
      const Unit& unit = units[taken];
      for (int64_t t = unit.begin; t < unit.end; ++t) keep_[unit.head * tokens_ + t] = there(unit.head, t);
      held += unit.count;
    }
    return taken;
  }

  std::span<const float> scores_;
  KeepRule rule_;
  int heads_;
  int64_t tokens_;
  std::vector<char> keep_;
  std::vector<int64_t> held_;  // by each head
};

}  // namespace

std::vector<char> keep_best(std::span<const float> scores, int heads, int64_t budget, const KeepRule& rule) {
  return Keeper(scores, heads, rule).run(budget);
}

std::vector<char> keep_critical(std::span<float> scores, std::span<const float> weights, int heads, int64_t budget,
                                const KeepRule& rule) {
  // What a token that nobody attends to counts for, beside mean attention: kvpress's.
  constexpr float kUnseen = 1e-4f;
  using Limits = std::numeric_limits<float>;
  const std::vector<char> first = keep_best(scores, heads, budget / 2, rule);
  for (size_t i = 0; i < scores.size(); ++i) {
    if (!(scores[i] > kMasked)) continue;
    scores[i] = first[i] ? Limits::max()
                         : std::clamp((scores[i] + kUnseen) * weights[i], Limits::lowest(), Limits::max() / 2);
  }
  return keep_best(scores, heads, budget, rule);
}

}  // namespace fathom
