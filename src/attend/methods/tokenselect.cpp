// Selects single tokens by a soft vote of all heads of a layer: the sum of the heads' softmax probabilities.
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

/// The selection of a chunk of rows: tokens in `masks`, and all tokens from local_begin on.
struct ChunkSelection {
  int64_t first = 0, end = 0;  // rows, as sequence indices
  int64_t local_begin = 0;
  std::shared_ptr<const std::vector<uint64_t>> masks;  // [entries]; null: all tokens
};

/// The state of one layer.
struct TokenSelectLayer {
  std::vector<ChunkSelection> chunks;  // selections of the newest forward pass, not saved
  ChunkSelection last;                 // the newest selection that is not of all tokens; `first` is not saved
  std::vector<float> last_mean;        // [heads, key_dim] mean query of `last`; empty: none

  void rewind(int64_t tokens) {
    chunks.clear();
    if (last.end > tokens) last_mean.clear();
  }
  void save(ByteWriter& out, const SequenceLayer& /*layer*/) const {
    out.add_list(last_mean);
    if (last_mean.empty()) return;
    out.add(last.end);
    out.add(last.local_begin);
    out.add_list(*last.masks);
  }
  void load(ByteReader& in, const SequenceLayer& layer) {
    last_mean = in.take_list<float>();
    if (last_mean.empty()) return;
    in.check(std::ssize(last_mean) == layer.query_width(), "expected a mean query of ", layer.query_width(),
             " numbers, found ", last_mean.size());
    last.end = in.take_int("end of the latest selection", 0, layer.tokens());
    last.local_begin = in.take_int("first token after the latest selection", 0, last.end);
    last.masks = std::make_shared<const std::vector<uint64_t>>(in.take_list<uint64_t>());
  }
};
using TokenSelectState = LayerStates<TokenSelectLayer, ScoreMemory>;

class TokenSelect final : public LayeredSelector<TokenSelectLayer, ScoreMemory> {
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

  void plan(const LayerQueries& queries, TokenSelectState& state, ThreadPool& pool) const override {
    TokenSelectLayer& layer = state.layers.at(queries.layer);
    layer.chunks.clear();
    for (int64_t row = 0; row < queries.rows; row += chunk_)
      layer.chunks.push_back(select_chunk(queries, row, std::min(row + chunk_, queries.rows), state, pool));
  }

  void select(const PageTable& table, const QueryBlock& block, const TokenSelectState* state,
              Selection& selection) const override {
    const int64_t end = block.first + block.rows;
    const ChunkSelection* selected = state ? selection_of(state->layers.at(block.layer), block.first) : nullptr;
    TokenSet all(table);
    if (!selected || !selected->masks) {  // without a state, plan() was not called
      all.add(0, end);
      return all.add_to(selection);
    }
    for (uint32_t s = 0; s < table.size() && table[s].first < end; ++s) {
      uint64_t mask = page_bits(selected->local_begin - table[s].first, kPageTokens);
      if (s < selected->masks->size()) mask |= (*selected->masks)[s];
      if (mask &= table[s].mask) selection.pages.push_back({s, table[s].position, mask, -1});
    }
    if (compacted_) compact(table, selected->local_begin, selection);
  }

 private:
  /// Returns the selection of a block's first row, which also applies if the block extends into the next chunk.
  static const ChunkSelection* selection_of(const TokenSelectLayer& layer, int64_t first) {
    const ChunkSelection* found = nullptr;
    for (const ChunkSelection& selected : layer.chunks) {
      if (selected.first <= first) found = &selected;
    }
    return found;
  }

  ChunkSelection select_chunk(const LayerQueries& queries, int64_t row, int64_t row_end, TokenSelectState& state,
                              ThreadPool& pool) const {
    TokenSelectLayer& layer = state.layers.at(queries.layer);
    ChunkSelection selected{queries.first + row, queries.first + row_end, 0, nullptr};
    // local tokens: the chunk itself, and earlier tokens if `window` is longer than the chunk
    const int64_t local_begin = std::min(selected.first, selected.end - window_);
    if (local_begin - sink_ <= budget_) return selected;
    std::vector<float> mean = mean_queries(queries, row, row_end);
    if (can_reuse(layer, mean, selected.end)) {
      selected.masks = layer.last.masks;
      // Later tokens were not scored for the last selection, so they are all visible.
      selected.local_begin = layer.last.local_begin;
      return selected;
    }
    selected.local_begin = local_begin;
    selected.masks = std::make_shared<std::vector<uint64_t>>(
        tokens_for(queries, row, mean, local_begin, state.common.scores, pool));
    layer.last = selected;
    layer.last_mean = std::move(mean);
    return selected;
  }

  bool can_reuse(const TokenSelectLayer& layer, const std::vector<float>& mean, int64_t end) const {
    if (theta_ >= 1 || layer.last_mean.empty() || layer.last.end + window_ < end) return false;
    return cosine_of(mean, layer.last_mean) >= theta_;
  }

  /// Returns [heads, key_dim]: the mean of the rows' queries, rotated by their positions.
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

  /// Returns [entries] masks of the sink and of the `budget_` tokens with the most votes between it and
  /// `local_begin`.
  std::vector<uint64_t> tokens_for(const LayerQueries& queries, int64_t row, const std::vector<float>& mean,
                                   int64_t local_begin, std::vector<float>& scores, ThreadPool& pool) const {
    const PageTable table = table_of_layer(queries);
    // Compacted tokens are scored as if all were just before the local tokens, the nearest position they can get.
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

  /// Returns the layer's page table with the tokens that are visible to at least one head. All heads have the same
  /// entries.
  static PageTable table_of_layer(const LayerQueries& queries) {
    PageTable table = queries.kv->table(0);
    for (int h = 1; h < queries.kv->heads(); ++h) {
      const PageTable& other = queries.kv->table(h);
      for (size_t s = 0; s < table.size(); ++s)
        if (other[s].mask & ~table[s].mask) table.edit(s).mask |= other[s].mask;
    }
    return table;
  }

  /// Moves the pages up to the local tokens, so that no gap follows the last selected token of a page. Tokens of a
  /// page keep their distances.
  static void compact(const PageTable& table, int64_t local_begin, Selection& selection) {
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
       .summary = "single tokens, selected by the summed votes of all heads of a layer",
       .paper = "TokenSelect: Efficient Long-Context Inference and Length Extrapolation for LLMs via Dynamic "
                "Token-Level KV Cache Selection, 2024",
       .needs = "any model",
       .time = "O(n) scores per chunk and O(budget + window + sink) per token; of a page, only the vectors of "
               "tokens with a selected token are read",
       .memory = "O(n): nothing is evicted",
       .parameters =
           {budget_parameter({.value = "2k",
                              .min = 1,
                              .summary = "tokens selected by vote; more is closer to dense attention and slower",
                              .old_names = {"topk"}}),
            window_parameter({.value = "512",
                              .min = 1,
                              .summary =
                                  "newest tokens, always visible, including the chunk being read; more is closer "
                                  "to dense attention and slower",
                              .old_names = {"local"}}),
            sink_parameter({.value = "128"}),
            chunk_parameter({.value = "512", .min = 1, .max = 1e9}),
            {"pool",
             Type::kInt,
             "1",
             "width of the max-pooling over votes, odd; more also selects the neighbours of tokens with many votes",
             1,
             1023,
             {}},
            {"theta",
             Type::kFloat,
             "1",
             "reuse the last selection while the cosine of the queries is at least this; lower is faster; 1: never",
             -1,
             1,
             {}},
            positions_parameter(
                "original", {"original", "compacted"},
                "original: selected tokens keep their positions; compacted: their pages move up to the window")},
       .capabilities = {.needs_host_pages = true, .works_on_recurrent = true, .works_with_drafts = true}},
      [](const Values& values) { return std::make_unique<TokenSelect>(values); }};
}

}  // namespace fathom
