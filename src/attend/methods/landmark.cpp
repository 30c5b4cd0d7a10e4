// For models with landmarks: the blocks whose landmarks have the largest shares of attention.
#include <algorithm>
#include <cmath>
#include <limits>

#include "attend/key_scores.h"
#include "attend/methods.h"
#include "attend/stateful_selector.h"
#include "attend/token_set.h"
#include "base/common_parameters.h"
#include "base/error.h"

namespace fathom {
namespace {

/// The keys of the landmarks so far. What was read before this method came is caught up with.
struct LayerLandmarks {
  int64_t block = 1;
  std::vector<KeyTable> heads;  // [kv_heads]

  void rewind(int64_t tokens) {
    for (KeyTable& keys : heads) keys.shorten(tokens / block);
  }
};
using State = LayerStates<LayerLandmarks>;

/// Blocks are chosen for each key/value head by a task's rows together (the way of the authors' code when the cache
/// lies in other memory): the largest share that a landmark has for one of the queries.
///
/// Chosen blocks lie in `topk` + 1 entries just before the rows' own block: in order from the first entry on, or,
/// if it is one of the `topk` newest, from the second one on. So no block seems farther away than in training. To
/// choose, older landmarks are taken to be in the first entry, the newest where they are.
class Landmark final : public LayeredSelector<LayerLandmarks> {
 public:
  explicit Landmark(const Values& values)
      : topk_(values.integer("topk")), original_positions_(values.string("positions") == "original") {}

  void attach(const AttendContext& context) override {
    if (!context.landmarks) {
      fail_usage(
          "attend method landmark: expected a model that was trained with landmarks (its file says "
          "attention.landmark_block), and on its own; this model has none");
    }
    LayeredSelector::attach(context);
  }
  std::unique_ptr<State> make_state() const override {
    auto state = LayeredSelector::make_state();
    for (int i = 0; i < context().layers; ++i) {
      const AttendLayer& layer = context().attention[i];
      const PageFormat format = layer.shape.format == PageFormat::kF32 ? PageFormat::kF32 : PageFormat::kBF16;
      state->layers[i] = {block(), std::vector<KeyTable>(layer.kv_heads, KeyTable(format, layer.shape.key_dim))};
    }
    return state;
  }

  void plan(const LayerQueries& queries, State& state, ThreadPool& pool) const override {
    const PagedKv& kv = *queries.kv;
    LayerLandmarks& layer = state.layers.at(queries.layer);
    const int64_t blocks = kv.tokens() / block();
    if (layer.heads[0].size() == blocks) return;
    pool.parallel_for(layer.heads.size(), [&](size_t head, int) {
      add_keys(queries, static_cast<int>(head), blocks, layer.heads[head]);
    });
  }

  void select(const PageTable& table, const QueryBlock& query, const State* state,
              Selection& selection) const override {
    const int64_t own = query.first / block();
    const auto add = [&](int64_t b, int64_t place) {
      selection.pages.push_back({static_cast<uint32_t>(b), place, table[b].mask, -1});
    };
    if (own <= topk_) {
      for (int64_t b = 0; b <= own; ++b) add(b, table[b].position);
      return;
    }
    const int64_t base = table[own].position - (topk_ + 1) * block();
    const std::vector<int64_t> chosen =
        top_scores(largest_shares(state->layers.at(query.layer).heads[query.head], table, query, own, base), topk_);
    for (int64_t i = 0; i < std::ssize(chosen); ++i) {
      const int64_t entry = chosen[i] >= own - topk_ ? i + 1 : i;
      add(chosen[i], original_positions_ ? table[chosen[i]].position : base + entry * block());
    }
    add(own, table[own].position);
  }

 private:
  int64_t block() const { return context().landmarks.block(); }

  /// As stored in their pages, or, for true positions, rotated to their positions in a sequence that begins at
  /// 0.
  void add_keys(const LayerQueries& queries, int head, int64_t blocks, KeyTable& keys) const {
    const PageTable& table = queries.kv->table(head);
    const PositionRotations& rotations = queries.kv->rotations();
    std::vector<float> key(queries.kv->shape().key_dim), spare(2 * static_cast<size_t>(rotations.pairs()));
    while (keys.size() < blocks) {
      const PageEntry& entry = table[keys.size()];
      read_landmark(queries.kv->store(), entry, key.data());
      if (original_positions_)
        rotate(*queries.kernels, key.data(), rotations, entry.position - table.front().position, spare.data());
      keys.add(key.data());
    }
  }
  void read_landmark(const PageStore& store, const PageEntry& entry, float* key) const {
    read_key(store.shape().format, store.shape().key_dim, store.keys(entry.page),
             static_cast<int>(context().landmarks.tokens), key);
  }
  static void rotate(const Kernels& kernels, float* key, const PositionRotations& rotations, int64_t place,
                     float* spare) {
    if (rotations.pairs() == 0) return;
    const PositionRotations::View rotation = rotations.at(place, spare);
    kernels.rotate_pairs(key, rotation.cos, rotation.sin, rotations.pairs());
  }

  /// Of blocks [0, count): of the softmax over their landmarks, the most that a query gives each. base: the place
  /// of the first entry.
  std::vector<float> largest_shares(const KeyTable& keys, const PageTable& table, const QueryBlock& query,
                                    int64_t count, int64_t base) const {
    const int queries = query.rows * query.group;
    const int dim = query.kv->shape().key_dim;
    std::vector<float> rotated(query.queries, query.queries + static_cast<int64_t>(queries) * dim);
    inverse_rotate(*query.kernels, query.kv->rotations(), original_positions_ ? table.front().position : base, dim,
                   rotated);
    const int64_t stride = keys.size();  // of all there are: later rows' too
    std::vector<float> scores(queries * stride), largest(count);
    keys.score(*query.kernels, rotated.data(), queries, scores.data(), stride);
    if (!original_positions_) score_newest(table, query, count, scores.data(), stride);
    for (int q = 0; q < queries; ++q) {
      const std::span row(scores.data() + q * stride, count);
      for (int64_t b = 0; b < count; ++b)
        if ((table[b].mask & ~context().landmarks.bit()) == 0) row[b] = -std::numeric_limits<float>::infinity();
      softmax_scores(*query.kernels, row, 1);
      for (int64_t b = 0; b < count; ++b) largest[b] = std::max(largest[b], row[b]);
    }
    return largest;
  }

  /// Scores of the `topk` newest of `count` landmarks, where they are.
  void score_newest(const PageTable& table, const QueryBlock& query, int64_t count, float* scores,
                    int64_t stride) const {
    const int dim = query.kv->shape().key_dim;
    std::vector<float> key(dim), spare(2 * static_cast<size_t>(query.kv->rotations().pairs()));
    for (int64_t b = count - topk_; b < count; ++b) {
      read_landmark(query.kv->store(), table[b], key.data());
      rotate(*query.kernels, key.data(), query.kv->rotations(), table[b].position, spare.data());
      for (int q = 0; q < query.rows * query.group; ++q)
        scores[q * stride + b] = dot(query.queries + static_cast<int64_t>(q) * dim, key.data(), dim);
    }
  }

  int64_t topk_;
  bool original_positions_;
};

}  // namespace

SelectorEntry landmark_method() {
  return {{.name = "landmark",
           .summary = "the blocks whose landmark tokens have the largest shares, and the query's own block",
           .paper = "Landmark Attention: Random-Access Infinite Context Length for Transformers, 2023",
           .needs = "a model trained with landmarks",
           .time = "O(topk * block + n / block) per token; blocks are chosen by up to a block of rows together",
           .memory = "O(n): nothing is dropped; the key of each landmark once more",
           .parameters =
               {topk_parameter(
                    {.value = "4", .min = 1, .max = 1e9, .summary = "past blocks visible to a block of queries"}),
                positions_parameter("compacted", {"compacted", "original"},
                                    "positions of past blocks: compacted to just before the query's block, as in "
                                    "training, or original")},
           .capabilities = {.needs_host_pages = true, .works_with_landmarks = true}},
          [](const Values& values) { return std::make_unique<Landmark>(values); }};
}

}  // namespace fathom
