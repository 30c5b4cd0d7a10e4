// Most steps see few tokens, those that the latest step over all tokens liked best; such steps come now and then.
#include <algorithm>
#include <cmath>
#include <memory>
#include <tuple>
#include <vector>

#include "attend/key_scores.h"
#include "attend/methods.h"
#include "attend/page_blocks.h"
#include "attend/stateful_selector.h"
#include "attend/token_set.h"
#include "base/common_parameters.h"
#include "base/error.h"

namespace fathom {
namespace {

constexpr int kPool = 7;  // neighbours that a high score lifts: the paper's

/// Tokens that a full step chose. New ones take the places of the worst, one by one.
class Chosen {
 public:
  struct Token {
    float score;
    uint32_t entry;
    uint8_t offset;
  };
  Chosen(std::vector<Token> tokens, size_t entries)
      : tokens_(std::move(tokens)), masks_(entries), sure_(std::ssize(tokens_)) {
    order(std::ssize(tokens_));
  }

  /// Puts in order what is needed to tell the best `count`.
  void order(int64_t count) {
    constexpr int64_t kAhead = 64;  // steps until the next time
    const auto better = [](const Token& a, const Token& b) {
      return std::tuple(a.score, a.entry, a.offset) > std::tuple(b.score, b.entry, b.offset);
    };
    const auto begin = tokens_.begin(), end = begin + sure_;
    const int64_t sure = std::clamp<int64_t>(count - kAhead, 0, sure_);
    std::nth_element(begin, begin + sure, end, better);
    std::sort(begin + sure, end, better);
    sure_ = sure;
    std::ranges::fill(masks_, 0);
    for (int64_t i = 0; i < sure; ++i) masks_[tokens_[i].entry] |= uint64_t{1} << tokens_[i].offset;
  }
  bool tells(int64_t count) const { return std::max<int64_t>(count, 0) >= sure_; }

  /// The best `count`, which order() was told of.
  void add_to(int64_t count, TokenSet& choice) const {
    for (uint32_t s = 0; s < masks_.size(); ++s) choice.add(s, masks_[s]);
    for (int64_t i = sure_; i < std::min(count, std::ssize(tokens_)); ++i)
      choice.add(tokens_[i].entry, uint64_t{1} << tokens_[i].offset);
  }

 private:
  std::vector<Token> tokens_;    // the best `sure_` in any order, then the others, best first
  std::vector<uint64_t> masks_;  // of the entries: the best `sure_`
  int64_t sure_ = 0;
};

/// What a layer remembers of its latest full step.
struct LayerChoice {
  int64_t end = 0;                                    // tokens there were then; 0: no such step yet
  bool full = true;                                   // of the step under way
  int64_t steps = 0;                                  // since, or since queries were last compared
  std::vector<float> mean;                            // query of that step, the mean over heads: [key_dim]
  std::vector<std::shared_ptr<const Chosen>> chosen;  // by each key/value head

  void rewind(int64_t left) {
    if (end > left) *this = {};  // the next step is a full one
  }
};
using State = LayerStates<LayerChoice, ScoreMemory>;

class Recycled final : public LayeredSelector<LayerChoice, ScoreMemory> {
 public:
  explicit Recycled(const Values& values)
      : budget_(values.integer("budget")),
        stride_(values.integer("stride")),
        block_(read_page_block("recycled", values, "block", 1)),
        share_(values.number("share")),
        cosine_(values.number("cosine")) {
    if (budget_ == 0 && share_ == 0)
      fail_usage("attend method recycled: expected a budget or a share of more than 0: a step must see something");
  }

  /// What is read several rows at a time is seen in full, and its last row chooses.
  void plan(const LayerQueries& queries, State& state, ThreadPool& pool) const override {
    LayerChoice& layer = state.layers.at(queries.layer);
    const std::vector<float> mean = mean_query(queries);
    layer.full = queries.rows > 1 || is_due(layer, mean);
    if (!layer.full) return order(layer, size(layer, queries.first + 1));
    layer.end = queries.first + queries.rows;
    layer.steps = 0;
    layer.mean = mean;
    choose(queries, layer, state.common.scores, pool);
  }

  void select(const PageTable& table, const QueryBlock& block, const State* state,
              Selection& selection) const override {
    TokenSet choice(table);
    const LayerChoice* layer = state ? &state->layers.at(block.layer) : nullptr;
    const int64_t end = block.first + block.rows;
    if (!layer || layer->full) {
      choice.add(0, end);
      return choice.add_to(selection);
    }
    choice.add(layer->end, end);
    layer->chosen[block.head]->add_to(size(*layer, end), choice);
    choice.add_to(selection);
  }

 private:
  int64_t size(int64_t tokens) const {
    return std::max(budget_, static_cast<int64_t>(std::llround(share_ * static_cast<double>(tokens))));
  }
  /// Of the tokens chosen by the latest full step when there are `end`: each new one takes the place of one.
  int64_t size(const LayerChoice& layer, int64_t end) const { return size(layer.end) - (end - layer.end); }

  /// Forks keep the order they know.
  static void order(LayerChoice& layer, int64_t count) {
    for (std::shared_ptr<const Chosen>& chosen : layer.chosen) {
      if (chosen->tells(count)) continue;
      auto ordered = std::make_shared<Chosen>(*chosen);
      ordered->order(count);
      chosen = std::move(ordered);
    }
  }

  /// Whether a step is to see everything: every `stride` steps, if the query has changed since.
  bool is_due(LayerChoice& layer, const std::vector<float>& mean) const {
    if (layer.end == 0) return true;
    if (++layer.steps < stride_) return false;
    layer.steps = 0;
    return cosine_ >= 1 || cosine_of(mean, layer.mean) < cosine_;
  }

  /// Of the last row, not rotated: what was asked, wherever it was asked.
  static std::vector<float> mean_query(const LayerQueries& queries) {
    const int dim = queries.kv->shape().key_dim;
    std::vector<float> mean(dim);
    for (int h = 0; h < queries.heads; ++h)
      for (int d = 0; d < dim; ++d) mean[d] += queries.query(queries.rows - 1, h)[d];
    return mean;
  }

  /// The attention of the last row, the largest of a group's heads, decides.
  void choose(const LayerQueries& queries, LayerChoice& layer, std::vector<float>& scores, ThreadPool& pool) const {
    const PagedKv& kv = *queries.kv;
    const int dim = kv.shape().key_dim, group = queries.group();
    std::vector<float> rotated(static_cast<size_t>(queries.heads) * dim), spare(dim);
    for (int h = 0; h < queries.heads; ++h)
      rotate_query(queries, queries.rows - 1, h, spare.data(), rotated.data() + static_cast<int64_t>(h) * dim);
    score_layer(queries, {0, layer.end}, rotated.data(), group, pool, scores);
    layer.chosen.resize(kv.heads());
    pool.parallel_for(kv.heads(), [&](size_t head, int) {
      const std::span<float> of_group(scores.data() + head * group * layer.end, group * layer.end);
      for (int q = 0; q < group; ++q)
        softmax_scores(*queries.kernels, of_group.subspan(q * layer.end, layer.end), queries.scale);
      const std::span<float> best = of_group.first(layer.end);
      for (int q = 1; q < group; ++q)
        for (int64_t t = 0; t < layer.end; ++t) best[t] = std::max(best[t], of_group[q * layer.end + t]);
      max_pool(best, kPool);
      const PageTable& table = kv.table(static_cast<int>(head));
      if (block_ > 1) share_in_blocks(table, best);
      mask_scores(table, 0, best);
      layer.chosen[head] = std::make_shared<const Chosen>(best_tokens(table, best, size(layer.end)), table.size());
    });
  }

  /// What the best token of a block of a page scores, each of them scores.
  void share_in_blocks(const PageTable& table, std::span<float> scores) const {
    for (const PageEntry& entry : table) {
      for (int begin = 0; begin < entry.filled; begin += block_) {
        const std::span<float> block = scores.subspan(entry.first + begin, std::min(block_, entry.filled - begin));
        std::ranges::fill(block, std::ranges::max(block));
      }
    }
  }

  /// The k tokens that score highest.
  static std::vector<Chosen::Token> best_tokens(const PageTable& table, std::span<const float> scores, int64_t k) {
    std::vector<Chosen::Token> tokens;
    uint32_t s = 0;
    for (const int64_t t : top_scores(scores, k)) {
      while (table[s].first + table[s].filled <= t) ++s;
      tokens.push_back({scores[t], s, static_cast<uint8_t>(t - table[s].first)});
    }
    return tokens;
  }

  int64_t budget_, stride_;
  int block_;
  double share_, cosine_;
};

}  // namespace

SelectorEntry recycled_method() {
  using Type = Parameter::Type;
  return {{.name = "recycled",
           .summary = "generated tokens see what the latest step over all tokens liked best",
           .paper = "Recycled Attention: Efficient inference for long-context language models, 2024",
           .needs = "any model; prompts are read in full",
           .time = "O(budget) per token, and O(n) every `stride` tokens at most",
           .memory = "O(n): nothing is dropped",
           .parameters = {budget_parameter({.value = "0", .summary = "tokens visible to a step"}),
                          share_parameter({.value = "0.125"}),
                          block_parameter({.value = "1",
                                           .min = 1,
                                           .max = 64,
                                           .summary = "tokens that are chosen together, a power of two: by 16 they "
                                                      "are read twice as fast as one by one"}),
                          {"stride", Type::kInt, "5", "steps from one possible full step to the next", 1, 1e9, {}},
                          {"cosine",
                           Type::kFloat,
                           "0.85",
                           "a full step comes when the query is less alike the last one's than this; 1: always",
                           -1,
                           1,
                           {}}},
           .capabilities = {.needs_host_pages = true, .works_on_recurrent = true}},
          [](const Values& values) { return std::make_unique<Recycled>(values); }};
}

}  // namespace fathom
