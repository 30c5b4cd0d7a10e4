// The blocks of keys that score highest, found by a tree search: groups of blocks are halved, and each half is
// scored by the block at its middle.
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "attend/key_scores.h"
#include "attend/methods.h"
#include "attend/page_blocks.h"
#include "attend/stateful_selector.h"
#include "attend/token_set.h"
#include "base/common_parameters.h"

namespace fathom {
namespace {

constexpr int kMaxRows = 16;  // rows of a prefill block whose queries are used

/// Blocks [begin, end) of the search.
struct BlockGroup {
  int64_t begin, end;
  float score;
};

/// The result of a layer's latest search, reused by steps of one row.
struct HipSearch {
  int64_t end = 0;                          // length of the sequence at the search
  int64_t steps = 0;                        // steps since the search
  int64_t blocks = 0;                       // number of blocks searched
  std::vector<std::vector<int64_t>> heads;  // [kv_heads] block numbers; empty: no search

  void rewind(int64_t tokens) {
    if (end > tokens) *this = {};
  }
  void save(ByteWriter& out, const SequenceLayer& /*layer*/) const {
    out.add(static_cast<int32_t>(heads.size()));
    if (heads.empty()) return;
    out.add(end);
    out.add(steps);
    out.add(blocks);
    for (const std::vector<int64_t>& found : heads) out.add_list(found);
  }
  void load(ByteReader& in, const SequenceLayer& layer) {
    heads.resize(layer.take_heads(in));
    if (heads.empty()) return;
    end = in.take_int("tokens at the search", 0, layer.tokens());
    steps = in.take_int("steps since the search", 0, kPositionLimit);
    blocks = in.take_int("blocks of the search", 0, end);
    for (std::vector<int64_t>& found : heads) {
      found = in.take_list_up_to<int64_t>(blocks);
      for (const int64_t number : found)
        in.check(number >= 0 && number < blocks, "expected found blocks below ", blocks, ", found ", number);
    }
  }
};
using HipState = LayerStates<HipSearch>;

/// The highest score of several queries with each key. All keys of a page are scored when the first of them is
/// needed.
class BestScores {
 public:
  /// queries: [count, key_dim], rotated. The arguments must outlive the object.
  BestScores(const Kernels& kernels, const PageTable& table, const PageStore& store,
             const PositionRotations& rotations, const float* queries, int count)
      : table_(table),
        keys_(kernels, store, rotations),
        queries_(queries),
        count_(count),
        known_(table.size(), -1) {}

  /// Returns the highest score with a token; −∞ for a masked token.
  float of(int64_t token) {
    const uint32_t s = entry_of(table_, token);
    if (known_[s] < 0) score_page(s);
    return best_[known_[s] + token - table_[s].first];
  }

 private:
  void score_page(uint32_t s) {
    const PageEntry& entry = table_[s];
    known_[s] = std::ssize(best_);
    best_.resize(best_.size() + kPageTokens, -std::numeric_limits<float>::infinity());
    if (entry.mask == 0) return;
    const float* scores = keys_.of_page(entry.page, entry.position, queries_, count_);
    float* best = best_.data() + known_[s];
    for (int q = 0; q < count_; ++q)
      for (int t = 0; t < kPageTokens; ++t) best[t] = std::max(best[t], scores[q * kPageTokens + t]);
    for (int t = 0; t < kPageTokens; ++t)
      if (!(entry.mask >> t & 1)) best[t] = -std::numeric_limits<float>::infinity();
  }

  const PageTable& table_;
  KeyScores keys_;
  const float* queries_;
  int count_;
  std::vector<int64_t> known_;  // [entries] index of the entry's scores in best_; −1: not scored yet
  std::vector<float> best_;
};

class Hip final : public LayeredSelector<HipSearch> {
 public:
  explicit Hip(const Values& values)
      : budget_(values.integer("budget")),
        block_(values.integer("block")),
        window_(values.integer("window")),
        sink_(values.integer("sink")),
        dense_layers_(values.integer("dense_layers")),
        refresh_(values.integer("refresh")) {}

  /// In passes of one row, searches for all heads every `refresh` steps. For blocks of several rows, select()
  /// searches.
  void plan(const LayerQueries& queries, HipState& state, ThreadPool& pool) const override {
    HipSearch& found = state.layers.at(queries.layer);
    if (queries.rows == 1 && !found.heads.empty() && ++found.steps < refresh_) return;
    found = {};
    const int64_t blocks = blocks_before(queries.first);
    if (queries.rows > 1 || attends_to_all(queries.layer, blocks)) return;
    found.end = queries.first + 1;
    found.blocks = blocks;
    found.heads.resize(queries.kv->heads());
    pool.parallel_for(found.heads.size(), [&](size_t head, int) {
      const int group = queries.group(), dim = queries.kv->shape().key_dim;
      std::vector<float> rotated(static_cast<size_t>(group) * dim), spare(dim);
      for (int q = 0; q < group; ++q)
        rotate_query(queries, 0, static_cast<int>(head) * group + q, spare.data(), rotated.data() + q * dim);
      BestScores scores(*queries.kernels, queries.kv->table(static_cast<int>(head)), queries.kv->store(),
                        queries.kv->rotations(), rotated.data(), group);
      found.heads[head] = search(scores, blocks);
    });
  }

  void select(const PageTable& table, const QueryBlock& block, const HipState* state,
              Selection& selection) const override {
    const int64_t end = block.first + block.rows;
    TokenSet selected(table);
    const HipSearch* found = state ? &state->layers.at(block.layer) : nullptr;
    if (found && found->heads.empty()) found = nullptr;
    const int64_t blocks = found ? found->blocks : blocks_before(block.first);
    if (attends_to_all(block.layer, blocks)) {
      selected.add(0, end);
      return selected.add_to(selection);
    }
    selected.add(0, sink_);
    selected.add(sink_ + blocks * block_, end);
    for (const int64_t number : found ? found->heads[block.head] : search_for(table, block, blocks))
      selected.add(sink_ + number * block_, sink_ + (number + 1) * block_);
    selected.add_to(selection);
  }

 private:
  /// Returns the number of whole blocks between the sink and the window of token `row`.
  int64_t blocks_before(int64_t row) const { return (std::max<int64_t>(0, row + 1 - window_) - sink_) / block_; }
  int64_t groups() const { return std::max<int64_t>(1, budget_ / block_); }
  bool attends_to_all(int layer, int64_t blocks) const { return layer < dense_layers_ || blocks <= groups(); }

  /// Searches with the queries of at most kMaxRows rows of a block.
  std::vector<int64_t> search_for(const PageTable& table, const QueryBlock& block, int64_t blocks) const {
    const int dim = block.kv->shape().key_dim;
    const std::vector<float> queries = sampled_queries(block, dim, kMaxRows);
    const auto count = static_cast<int>(std::ssize(queries) / dim);
    BestScores scores(*block.kernels, table, block.kv->store(), block.kv->rotations(), queries.data(), count);
    return search(scores, blocks);
  }

  /// Returns the numbers of the selected blocks.
  std::vector<int64_t> search(BestScores& scores, int64_t blocks) const {
    const int64_t count = groups();
    std::vector<BlockGroup> groups;
    for (int64_t i = 0; i < count; ++i) groups.push_back({blocks * i / count, blocks * (i + 1) / count, 0});
    const auto whole = [](const BlockGroup& group) { return group.end - group.begin > 1; };
    std::vector<BlockGroup> halves;
    while (std::ranges::any_of(groups, whole)) {
      halves.clear();
      for (const BlockGroup& group : groups) {
        const int64_t middle = (group.begin + group.end + 1) / 2;
        halves.push_back({group.begin, middle, 0});
        if (middle < group.end) halves.push_back({middle, group.end, 0});
      }
      for (BlockGroup& half : halves) half.score = score(scores, (half.begin + half.end) / 2);
      // Among equal scores the newer half is selected.
      const auto better = [](const BlockGroup& a, const BlockGroup& b) {
        return a.score != b.score ? a.score > b.score : a.begin > b.begin;
      };
      const auto kept = std::min<int64_t>(count, std::ssize(halves));
      std::ranges::nth_element(halves, halves.begin() + kept - 1, better);
      halves.resize(kept);
      groups.swap(halves);
    }
    std::vector<int64_t> found;
    for (const BlockGroup& group : groups) found.push_back(group.begin);
    return found;
  }

  float score(BestScores& scores, int64_t number) const {
    float best = -std::numeric_limits<float>::infinity();
    for (int64_t i = 0; i < block_; ++i) best = std::max(best, scores.of(sink_ + number * block_ + i));
    return best;
  }

  int64_t budget_, block_, window_, sink_, dense_layers_, refresh_;
};

}  // namespace

SelectorEntry hip_method() {
  using Type = Parameter::Type;
  return {
      {.name = "hip",
       .summary =
           "the keys that score highest, found by repeatedly halving groups and testing the middle of each half",
       .paper = "A Training-free Sub-quadratic Cost Transformer Model Serving Framework With Hierarchically Pruned "
                "Attention, 2025",
       .needs = "any model",
       .time =
           "O(budget · log n) per block of queries or `refresh` steps; each page with a tested key is scored whole",
       .memory = "O(n): nothing is evicted",
       .parameters =
           {budget_parameter(
                {.value = "512",
                 .min = 2,
                 .max = 1e9,
                 .summary = "tokens found for a block of queries; more is closer to dense attention and slower",
                 .old_names = {"keys"}}),
            block_parameter({.value = "2",
                             .min = 1,
                             .max = 64,
                             .summary = "consecutive tokens found together; larger is faster and less selective"}),
            window_parameter({.value = "256", .min = 1}),
            sink_parameter({.value = "16"}),
            {"dense_layers",
             Type::kInt,
             "3",
             "first layers that attend to all tokens; more is closer to dense attention and slower",
             0,
             1e6,
             {}},
            {"refresh",
             Type::kInt,
             "8",
             "generated tokens between two searches; more is faster and follows the query more slowly",
             1,
             1e6,
             {}}},
       .capabilities = {.needs_host_pages = true, .works_on_recurrent = true, .works_with_drafts = true}},
      [](const Values& values) { return std::make_unique<Hip>(values); }};
}

}  // namespace fathom
