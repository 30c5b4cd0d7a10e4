#include "evict/keep_rule.h"

#include <algorithm>
#include <limits>

namespace fathom {
namespace {

// With by_layer each head keeps at minimum this share of an even budget. 0.2 is the value of the paper: Ada-KV:
// Optimizing KV Cache Eviction by Adaptive Budget Allocation for Efficient LLM Inference, 2024.
constexpr double kMinHeadShare = 0.2;
constexpr float kMasked = -std::numeric_limits<float>::infinity();

/// Neighbouring tokens of a head that are kept or evicted together.
struct TokenBlock {
  double score;  // the mean over the present tokens
  int head;
  int64_t begin, end;  // tokens
  int64_t count;       // present tokens among them
};

bool better(const TokenBlock& a, const TokenBlock& b) {
  if (a.score != b.score) return a.score > b.score;
  return a.begin != b.begin ? a.begin > b.begin : a.head < b.head;
}

/// Selects the tokens of a layer to keep. Tokens with a score of −∞ are absent.
class KeepSelection {
 public:
  KeepSelection(std::span<const float> scores, int heads, const KeepRule& rule)
      : scores_(scores),
        rule_(rule),
        heads_(heads),
        tokens_(std::ssize(scores) / heads),
        keep_(scores.size()),
        held_(heads) {
    for (int h = 0; h < heads; ++h) {
      for (int64_t t = 0; t < tokens_; ++t) {
        if (t >= rule.sink && t < tokens_ - rule.window) continue;
        held_[h] += keep_[h * tokens_ + t] = present(h, t);
      }
    }
  }

  std::vector<char> run(int64_t budget) {
    std::vector<TokenBlock> rest;
    for (int h = 0; h < heads_; ++h) {
      std::vector<TokenBlock> blocks = blocks_of(h);
      std::ranges::sort(blocks, better);
      const auto minimum = static_cast<int64_t>(kMinHeadShare * static_cast<double>(budget));
      const size_t taken = take(blocks, held_[h], rule_.by_layer ? minimum : budget);
      rest.insert(rest.end(), blocks.begin() + static_cast<int64_t>(taken), blocks.end());
    }
    if (!rule_.by_layer) return std::move(keep_);
    std::ranges::sort(rest, better);
    int64_t held = 0;
    for (const int64_t own : held_) held += own;
    take(rest, held, budget * heads_);
    return std::move(keep_);
  }

 private:
  bool present(int head, int64_t token) const { return scores_[head * tokens_ + token] > kMasked; }

  /// Returns the blocks with a present token, sink and window excluded.
  std::vector<TokenBlock> blocks_of(int head) const {
    std::vector<TokenBlock> blocks;
    const int64_t last = tokens_ - rule_.window;
    for (int64_t begin = rule_.sink; begin < last;) {
      const int64_t end = std::min((begin / rule_.block + 1) * rule_.block, last);
      TokenBlock block{0, head, begin, end, 0};
      for (int64_t t = begin; t < end; ++t) {
        if (!present(head, t)) continue;
        block.score += scores_[head * tokens_ + t];
        ++block.count;
      }
      block.score /= static_cast<double>(std::max<int64_t>(1, block.count));
      if (block.count > 0) blocks.push_back(block);
      begin = end;
    }
    return blocks;
  }

  /// Keeps blocks in the given order until the next one would exceed `budget` tokens. Returns the number of blocks
  /// kept.
  size_t take(const std::vector<TokenBlock>& blocks, int64_t& held, int64_t budget) {
    size_t taken = 0;
    for (; taken < blocks.size() && held + blocks[taken].count <= budget; ++taken) {
      const TokenBlock& block = blocks[taken];
      for (int64_t t = block.begin; t < block.end; ++t) keep_[block.head * tokens_ + t] = present(block.head, t);
      held += block.count;
    }
    return taken;
  }

  std::span<const float> scores_;
  KeepRule rule_;
  int heads_;
  int64_t tokens_;
  std::vector<char> keep_;
  std::vector<int64_t> held_;  // [heads], tokens kept
};

}  // namespace

std::vector<char> keep_best(std::span<const float> scores, int heads, int64_t budget, const KeepRule& rule) {
  return KeepSelection(scores, heads, rule).run(budget);
}

std::vector<char> keep_critical(std::span<float> scores, std::span<const float> weights, int heads, int64_t budget,
                                const KeepRule& rule) {
  // Added to the mean attention, so that a token without attention still counts by its weight. The value is that of
  // NVIDIA's kvpress.
  constexpr float kScoreOffset = 1e-4f;
  using Limits = std::numeric_limits<float>;
  const std::vector<char> first = keep_best(scores, heads, budget / 2, rule);
  for (size_t i = 0; i < scores.size(); ++i) {
    if (!(scores[i] > kMasked)) continue;
    scores[i] = first[i] ? Limits::max()
                         : std::clamp((scores[i] + kScoreOffset) * weights[i], Limits::lowest(), Limits::max() / 2);
  }
  return keep_best(scores, heads, budget, rule);
}

}  // namespace fathom
