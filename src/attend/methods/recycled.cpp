// A full step attends to all tokens. The decode steps between two full steps attend only to the tokens with the
// highest attention in the latest full step.
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

constexpr int kPool = 7;  // width of the max-pooling of scores, as in the paper

/// The tokens that a full step selected. Each token generated later replaces the token with the lowest score.
class RecycledTokens {
 public:
  struct Token {
    float score;
    uint32_t entry;
    uint8_t offset;
  };
  RecycledTokens(std::vector<Token> tokens, size_t entries)
      : tokens_(std::move(tokens)), masks_(entries), unordered_(std::ssize(tokens_)) {
    order(std::ssize(tokens_));
  }
  /// Reads what save() wrote. entries: of the page table at the full step.
  RecycledTokens(ByteReader& in, size_t entries);
  void save(ByteWriter& out) const;

  /// Sorts tokens as far as needed to find the best `count` tokens.
  void order(int64_t count) {
    constexpr int64_t kAhead = 64;  // steps until the next sort
    const auto better = [](const Token& a, const Token& b) {
      return std::tuple(a.score, a.entry, a.offset) > std::tuple(b.score, b.entry, b.offset);
    };
    const auto begin = tokens_.begin(), end = begin + unordered_;
    const int64_t unordered = std::clamp<int64_t>(count - kAhead, 0, unordered_);
    std::nth_element(begin, begin + unordered, end, better);
    std::sort(begin + unordered, end, better);
    unordered_ = unordered;
    fill_masks();
  }
  /// Returns whether the best `count` tokens can be found without another order().
  bool is_ordered(int64_t count) const { return std::max<int64_t>(count, 0) >= unordered_; }

  /// Adds the best `count` tokens; requires is_ordered(count).
  void add_to(int64_t count, TokenSet& visible) const {
    for (uint32_t s = 0; s < masks_.size(); ++s) visible.add(s, masks_[s]);
    for (int64_t i = unordered_; i < std::min(count, std::ssize(tokens_)); ++i)
      visible.add(tokens_[i].entry, uint64_t{1} << tokens_[i].offset);
  }

 private:
  void fill_masks() {
    std::ranges::fill(masks_, 0);
    for (int64_t i = 0; i < unordered_; ++i) masks_[tokens_[i].entry] |= uint64_t{1} << tokens_[i].offset;
  }

  std::vector<Token> tokens_;    // the best `unordered_` in any order, then the others, best first
  std::vector<uint64_t> masks_;  // [entries] the best `unordered_` tokens
  int64_t unordered_ = 0;
};

void RecycledTokens::save(ByteWriter& out) const {
  out.add(uint64_t{tokens_.size()});
  for (const Token& token : tokens_) {
    out.add(token.score);
    out.add(token.entry);
    out.add(token.offset);
  }
  out.add(unordered_);
}

RecycledTokens::RecycledTokens(ByteReader& in, size_t entries) : masks_(entries) {
  const auto count = in.take<uint64_t>();
  in.check(count <= entries * kPageTokens, "expected at most ", entries * kPageTokens, " selected tokens, found ",
           count);
  for (uint64_t i = 0; i < count; ++i) {
    Token token{};
    token.score = in.take<float>();
    token.entry = in.take<uint32_t>();
    token.offset = in.take<uint8_t>();
    in.check(!std::isnan(token.score), "expected a score of each selected token, found NaN");
    in.check(token.entry < entries && token.offset < kPageTokens, "expected selected tokens in ", entries,
             " page-table entries, found one in entry ", token.entry, " at offset ", token.offset);
    tokens_.push_back(token);
  }
  unordered_ = in.take_int("selected tokens without order", 0, std::ssize(tokens_));
  fill_masks();
}

/// The result of a layer's latest full step.
struct FullStep {
  int64_t end = 0;          // length of the sequence at that step; 0: no full step yet
  bool full = true;         // whether the current step is a full one
  int64_t steps = 0;        // steps since that step, or since the last comparison of queries
  std::vector<float> mean;  // [key_dim] query of that step, summed over heads
  std::vector<std::shared_ptr<const RecycledTokens>> selected;  // [kv_heads]

  void rewind(int64_t left) {
    if (end > left) *this = {};  // the next step is a full one
  }
  void save(ByteWriter& out, const SequenceLayer& /*layer*/) const {
    out.add(end);
    if (end == 0) return;
    out.add_flag(full);
    out.add(steps);
    out.add_list(mean);
    for (const auto& tokens : selected) tokens->save(out);
  }
  void load(ByteReader& in, const SequenceLayer& layer) {
    end = in.take_int("tokens at the full step", 0, layer.tokens());
    if (end == 0) return;
    full = in.take_flag();
    steps = in.take_int("steps since the full step", 0, kPositionLimit);
    mean = in.take_list<float>(layer.key_dim());
    for (int head = 0; head < layer.heads(); ++head)
      selected.push_back(std::make_shared<const RecycledTokens>(in, layer.entries(head, end)));
  }
};
using RecycledState = LayerStates<FullStep, ScoreMemory>;

class Recycled final : public LayeredSelector<FullStep, ScoreMemory> {
 public:
  explicit Recycled(const Values& values)
      : budget_(values.integer("budget")),
        stride_(values.integer("stride")),
        block_(read_page_block("recycled", values, "block", 1)),
        share_(values.number("share")),
        cosine_(values.number("cosine")) {
    if (budget_ == 0 && share_ == 0)
      fail_usage("attend method recycled: expected budget or share above 0, found budget=0 and share=0");
  }

  /// A pass of several rows is a full step; the attention of its last row makes the selection.
  void plan(const LayerQueries& queries, RecycledState& state, ThreadPool& pool) const override {
    FullStep& layer = state.layers.at(queries.layer);
    const std::vector<float> mean = mean_query(queries);
    layer.full = queries.rows > 1 || is_due(layer, mean);
    if (!layer.full) return order(layer, size(layer, queries.first + 1));
    layer.end = queries.first + queries.rows;
    layer.steps = 0;
    layer.mean = mean;
    select_tokens(queries, layer, state.common.scores, pool);
  }

  void select(const PageTable& table, const QueryBlock& block, const RecycledState* state,
              Selection& selection) const override {
    TokenSet visible(table);
    const FullStep* layer = state ? &state->layers.at(block.layer) : nullptr;
    const int64_t end = block.first + block.rows;
    if (!layer || layer->full) {
      visible.add(0, end);
      return visible.add_to(selection);
    }
    visible.add(layer->end, end);
    layer->selected[block.head]->add_to(size(*layer, end), visible);
    visible.add_to(selection);
  }

 private:
  int64_t size(int64_t tokens) const {
    return std::max(budget_, static_cast<int64_t>(std::llround(share_ * static_cast<double>(tokens))));
  }
  /// Returns how many of the selected tokens remain at sequence length `end`: each new token replaces one.
  int64_t size(const FullStep& layer, int64_t end) const { return size(layer.end) - (end - layer.end); }

  /// Sorts the selected tokens as needed. Copies them first, because forks share them.
  static void order(FullStep& layer, int64_t count) {
    for (std::shared_ptr<const RecycledTokens>& selected : layer.selected) {
      if (selected->is_ordered(count)) continue;
      auto ordered = std::make_shared<RecycledTokens>(*selected);
      ordered->order(count);
      selected = std::move(ordered);
    }
  }

  /// Returns whether this step is a full one: checked every `stride` steps, true if the query has changed enough.
  bool is_due(FullStep& layer, const std::vector<float>& mean) const {
    if (layer.end == 0) return true;
    if (++layer.steps < stride_) return false;
    layer.steps = 0;
    return cosine_ >= 1 || cosine_of(mean, layer.mean) < cosine_;
  }

  /// Returns the unrotated query of the last row, summed over heads. It does not depend on the position.
  static std::vector<float> mean_query(const LayerQueries& queries) {
    const int dim = queries.kv->shape().key_dim;
    std::vector<float> mean(dim);
    for (int h = 0; h < queries.heads; ++h)
      for (int d = 0; d < dim; ++d) mean[d] += queries.query(queries.rows - 1, h)[d];
    return mean;
  }

  /// Selects tokens by the attention of the last row, with the maximum over the heads of a group.
  void select_tokens(const LayerQueries& queries, FullStep& layer, std::vector<float>& scores,
                     ThreadPool& pool) const {
    const PagedKv& kv = *queries.kv;
    const int dim = kv.shape().key_dim, group = queries.group();
    std::vector<float> rotated(static_cast<size_t>(queries.heads) * dim), spare(dim);
    for (int h = 0; h < queries.heads; ++h)
      rotate_query(queries, queries.rows - 1, h, spare.data(), rotated.data() + static_cast<int64_t>(h) * dim);
    score_layer(queries, {0, layer.end}, rotated.data(), group, pool, scores);
    layer.selected.resize(kv.heads());
    pool.parallel_for(kv.heads(), [&](size_t head, int) {
      const std::span<float> of_group(scores.data() + head * group * layer.end, group * layer.end);
      for (int q = 0; q < group; ++q)
        softmax_scores(*queries.kernels, of_group.subspan(q * layer.end, layer.end), queries.scale);
      const std::span<float> best = of_group.first(layer.end);
      for (int q = 1; q < group; ++q)
        for (int64_t t = 0; t < layer.end; ++t) best[t] = std::max(best[t], of_group[q * layer.end + t]);
      max_pool(best, kPool);
      const PageTable& table = kv.table(static_cast<int>(head));
      if (block_ > 1) max_over_blocks(table, best);
      mask_scores(table, 0, best);
      layer.selected[head] =
          std::make_shared<const RecycledTokens>(best_tokens(table, best, size(layer.end)), table.size());
    });
  }

  /// Replaces each score by the highest score of its block.
  void max_over_blocks(const PageTable& table, std::span<float> scores) const {
    for (const PageEntry& entry : table) {
      for (int begin = 0; begin < entry.filled; begin += block_) {
        const std::span<float> block = scores.subspan(entry.first + begin, std::min(block_, entry.filled - begin));
        std::ranges::fill(block, std::ranges::max(block));
      }
    }
  }

  /// Returns the k tokens with the highest scores.
  static std::vector<RecycledTokens::Token> best_tokens(const PageTable& table, std::span<const float> scores,
                                                        int64_t k) {
    std::vector<RecycledTokens::Token> tokens;
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
           .summary = "generated tokens attend to the tokens with the highest attention in the last full step",
           .paper = "Recycled Attention: Efficient inference for long-context language models, 2024",
           .needs = "any model; prompts are read in full",
           .time = "O(budget) per token, and O(n) every `stride` tokens at most",
           .memory = "O(n): nothing is evicted",
           .parameters = {budget_parameter({.value = "0",
                                            .summary = "tokens visible to a generated token, if more than share "
                                                       "gives; more is closer to dense attention and slower"}),
                          share_parameter({.value = "0.125",
                                           .summary = "share of all tokens visible to a generated token; more is "
                                                      "closer to dense attention and slower"}),
                          block_parameter({.value = "1",
                                           .min = 1,
                                           .max = 64,
                                           .summary = "tokens selected together, a power of two; 16 is read twice "
                                                      "as fast as 1 and keeps neighbours"}),
                          {"stride",
                           Type::kInt,
                           "5",
                           "generated tokens between two checks for a full step; more is faster and reacts later",
                           1,
                           1e9,
                           {}},
                          {"cosine",
                           Type::kFloat,
                           "0.85",
                           "a full step runs if the cosine to the last full step's query is below this; more: more "
                           "full steps; 1: always",
                           -1,
                           1,
                           {}}},
           .capabilities = {.needs_host_pages = true, .works_on_recurrent = true, .works_with_drafts = true}},
          [](const Values& values) { return std::make_unique<Recycled>(values); }};
}

}  // namespace fathom
