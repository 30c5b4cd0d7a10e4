// Single tokens by the vote of all heads of a layer: each head's softmax, summed.
#include <algorithm>
#include <bit>
#include <memory>
#include <vector>

#include "attend/key_scores.h"
#include "attend/methods.h"
#include "attend/stateful_selector.h"
#include "attend/token_set.h"
#include "base/common_parameters.h"
#include "base/error.h"

namespace fathom {
namespace {

/// What the rows of a chunk see: tokens with bits in `masks`, and all from local_begin on.
struct Choice {
  int64_t first = 0, end = 0;  // rows, as tokens of the sequence
  int64_t local_begin = 0;
  std::shared_ptr<const std::vector<uint64_t>> masks;  // [entries of a table]; null: all is seen
};

struct LayerChoices {
  std::vector<Choice> chunks;    // of the newest forward pass
  Choice last;                   // the newest that left something out
  std::vector<float> last_mean;  // queries that it was made for: [heads, key_dim]; empty: none

  void rewind(int64_t tokens) {
    chunks.clear();
    if (last.end > tokens) last_mean.clear();
  }
};
using State = LayerStates<LayerChoices, ScoreMemory>;

class TokenSelect final : public LayeredSelector<LayerChoices, ScoreMemory> {
 public:
  explicit TokenSelect(const Values& values)
      : budget_(values.integer("budget")),
        window_(values.integer("window")),
        sink_(values.integer("sink")),
        chunk_(values.integer("chunk")),
        pool_(values.integer("pool")),
        theta_(values.number("theta")),
        compacted_(values.string("positions") == "compacted") {
    if (pool_ % 2 == 0) fail_usage("attend method tokenselect: pool: expected an odd number, found ", pool_);
  }

  void plan(const LayerQueries& queries, State& state, ThreadPool& pool) const override {
    LayerChoices& layer = state.layers.at(queries.layer);
    layer.chunks.clear();
    for (int64_t row = 0; row < queries.rows; row += chunk_)
      layer.chunks.push_back(choose(queries, row, std::min(row + chunk_, queries.rows), state, pool));
  }

  void select(const PageTable& table, const QueryBlock& block, const State* state,
              Selection& selection) const override {
    const int64_t end = block.first + block.rows;
    const Choice* choice = state ? choice_of(state->layers.at(block.layer), block.first) : nullptr;
    TokenSet all(table);
    if (!choice || !choice->masks) {  // without a state there is no plan either
      all.add(0, end);
      return all.add_to(selection);
    }
    for (uint32_t s = 0; s < table.size() && table[s].first < end; ++s) {
      uint64_t mask = page_bits(choice->local_begin - table[s].first, kPageTokens);
      if (s < choice->masks->size()) mask |= (*choice->masks)[s];
      if (mask &= table[s].mask) selection.pages.push_back({s, table[s].position, mask, -1});
    }
    if (compacted_) pack(table, choice->local_begin, selection);
  }

 private:
  /// That of the block's first row: a block that reaches into the next chunk stays with it.
  static const Choice* choice_of(const LayerChoices& layer, int64_t first) {
    const Choice* found = nullptr;
    for (const Choice& choice : layer.chunks) {
      if (choice.first <= first) found = &choice;
    }
    return found;
  }

  Choice choose(const LayerQueries& queries, int64_t row, int64_t row_end, State& state, ThreadPool& pool) const {
    LayerChoices& layer = state.layers.at(queries.layer);
    Choice choice{queries.first + row, queries.first + row_end, 0, nullptr};
    // A chunk is local to its rows, and tokens before it if `window` is longer.
    const int64_t local_begin = std::min(choice.first, choice.end - window_);
    if (local_begin - sink_ <= budget_) return choice;
    std::vector<float> mean = mean_queries(queries, row, row_end);
    if (may_use_again(layer, mean, choice.end)) {
      choice.masks = layer.last.masks;
      choice.local_begin = layer.last.local_begin;  // what has come since is not among its candidates
      return choice;
    }
    choice.local_begin = local_begin;
    choice.masks = std::make_shared<std::vector<uint64_t>>(
        tokens_for(queries, row, mean, local_begin, state.common.scores, pool));
    layer.last = choice;
    layer.last_mean = std::move(mean);
    return choice;
  }

  bool may_use_again(const LayerChoices& layer, const std::vector<float>& mean, int64_t end) const {
    if (theta_ >= 1 || layer.last_mean.empty() || layer.last.end + window_ < end) return false;
    return cosine_of(mean, layer.last_mean) >= theta_;
  }

  /// [heads, key_dim]: rotated by the rows' positions.
  static std::vector<float> mean_queries(const LayerQueries& queries, int64_t row, int64_t row_end) {
    const int dim = queries.kv->shape().key_dim;
    std::vector<float> mean(static_cast<size_t>(queries.heads) * dim), rotated(dim), spare(dim);
    for (int64_t r = row; r < row_end; ++r) {
      for (int h = 0; h < queries.heads; ++h) {
        rotate_query(queries, r, h, spare.data(), rotated.data());
        for (int d = 0; d < dim; ++d) mean[static_cast<size_t>(h) * dim + d] += rotated[d];
      }
    }
    for (float& x : mean) x /= static_cast<float>(row_end - row);
    return mean;
  }

  /// The first tokens and the `budget_` tokens between them and `local_begin` with most votes, as masks of entries.
  std::vector<uint64_t> tokens_for(const LayerQueries& queries, int64_t row, const std::vector<float>& mean,
                                   int64_t local_begin, std::vector<float>& scores, ThreadPool& pool) const {
    const PageTable table = table_of_layer(queries);
    // Packed tokens are judged where they will sit at most: as if all were just before what is local.
    const int64_t near = std::max<int64_t>(0, queries.positions[row] - window_ - (kPageTokens - 1));
    score_layer(queries, {sink_, local_begin, compacted_ ? near : -1}, mean.data(), queries.group(), pool, scores);
    std::vector<float> votes = soft_vote(*queries.kernels, scores, queries.heads, queries.scale, pool);
    max_pool(votes, pool_);
    mask_scores(table, sink_, votes);
    std::vector<uint64_t> masks(table.size());
    for (size_t s = 0; s < table.size(); ++s) masks[s] = page_bits(0, sink_ - table[s].first);
    size_t s = 0;
    for (const int64_t i : top_scores(votes, budget_)) {
      while (table[s].first + table[s].filled <= sink_ + i) ++s;
      masks[s] |= uint64_t{1} << (sink_ + i - table[s].first);
    }
    return masks;
  }

  /// The entries, alike in all tables, with the tokens that some head may see.
  static PageTable table_of_layer(const LayerQueries& queries) {
    PageTable table = queries.kv->table(0);
    for (int h = 1; h < queries.kv->heads(); ++h) {
      const PageTable& other = queries.kv->table(h);
      for (size_t s = 0; s < table.size(); ++s)
        if (other[s].mask & ~table[s].mask) table.edit(s).mask |= other[s].mask;
    }
    return table;
  }

  /// Moves the pages before what is local up to it, each by as much as leaves no gap behind its last chosen token.
  /// Tokens of a page keep their distances.
  static void pack(const PageTable& table, int64_t local_begin, Selection& selection) {
    int64_t next = -1;  // position before which the page ends
    for (auto page = selection.pages.rbegin(); page != selection.pages.rend(); ++page) {
      const PageEntry& entry = table[page->entry];
      const int last = 63 - std::countl_zero(page->mask);
      if (next >= 0 && entry.first + entry.filled <= local_begin)
        page->position = std::max(entry.position, next - 1 - last);
      next = page->position + last + 1 - std::popcount(page->mask);
    }
  }

  int64_t budget_, window_, sink_, chunk_, pool_;
  double theta_;
  bool compacted_;
};

}  // namespace

SelectorEntry tokenselect_method() {
  using Type = Parameter::Type;
  return {
      {.name = "tokenselect",
       .summary = "the tokens that most votes of a layer's heads choose; packed places go by pages",
       .paper = "TokenSelect: Efficient Long-Context Inference and Length Extrapolation for LLMs via Dynamic "
                "Token-Level KV Cache Selection, 2024",
       .needs = "any model",
       .time = "O(n) scores per chunk and O(budget + window + sink) per token; of pages, vectors of tokens with a "
               "chosen one are read",
       .memory = "O(n): nothing is dropped",
       .parameters =
           {budget_parameter(
                {.value = "2k", .min = 1, .summary = "tokens that are chosen by vote", .old_names = {"topk"}}),
            window_parameter({.value = "512",
                              .min = 1,
                              .summary = "newest tokens, always visible; those of a chunk of prefill count",
                              .old_names = {"local"}}),
            sink_parameter({.value = "128"}),
            chunk_parameter({.value = "512", .min = 1, .max = 1e9}),
            {"pool", Type::kInt, "1", "width of the max-pooling of votes, odd", 1, 1023, {}},
            {"theta",
             Type::kFloat,
             "1",
             "a choice is used again for queries at least that cosine alike; 1: never",
             -1,
             1,
             {}},
            positions_parameter("original", {"original", "compacted"},
                                "positions of chosen tokens: original, or compacted to just before the window")},
       .capabilities = {.needs_host_pages = true, .works_on_recurrent = true}},
      [](const Values& values) { return std::make_unique<TokenSelect>(values); }};
}

}  // namespace fathom
