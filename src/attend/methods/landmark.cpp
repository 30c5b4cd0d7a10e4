// For models with landmark tokens: selects the blocks whose landmarks have the highest attention probability.
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

/// The keys of a layer's landmarks. Landmarks that were read before the method was enabled are added later.
struct LandmarkKeys {
  int64_t block = 1;            // tokens of a block, its landmark included
  std::vector<KeyTable> heads;  // [kv_heads]

  void rewind(int64_t tokens) {
    for (KeyTable& keys : heads) keys.shorten(tokens / block);
  }
  size_t bytes() const {
    size_t bytes = 0;
    for (const KeyTable& keys : heads) bytes += keys.bytes();
    return bytes;
  }
  void save(ByteWriter& out, const SequenceLayer& /*layer*/) const {
    for (const KeyTable& keys : heads) keys.save(out);
  }
  void load(ByteReader& in, const SequenceLayer& layer) {
    for (KeyTable& keys : heads) {
      keys.load(in, layer.tokens() / block);
      in.check(keys.size() == heads[0].size(), "expected the same number of landmarks in all heads");
    }
  }
};
using LandmarkState = LayerStates<LandmarkKeys>;

/// Selects blocks per key/value head for all rows of a block together, by the largest probability that a landmark
/// gets from any of their queries. The authors' code does the same when the cache is offloaded.
///
/// With compacted positions, the selected blocks take `topk` + 1 block positions just before the rows' own block.
/// They fill these in order from the first one on; the `topk` newest blocks are moved up by one. No block is then
/// farther away than in training. When landmarks are scored, the `topk` newest are at their own positions and all
/// older ones at the first of the compacted positions.
class Landmark final : public LayeredSelector<LandmarkKeys> {
 public:
  explicit Landmark(const Values& values)
      : topk_(values.integer("topk")), original_positions_(values.string("positions") == "original") {}

  void attach(const AttendContext& context) override {
    if (!context.landmarks) {
      fail_usage(
          "attend method landmark: expected a model that was trained with landmarks (attention.landmark_block in "
          "its file), found a model without landmarks");
    }
    LayeredSelector::attach(context);
  }
  std::unique_ptr<LandmarkState> make_state() const override {
    auto state = LayeredSelector::make_state();
    for (int i = 0; i < context().layers; ++i) {
      const AttendLayer& layer = context().attention[i];
      const PageFormat format = layer.shape.format == PageFormat::kF32 ? PageFormat::kF32 : PageFormat::kBF16;
      state->layers[i] = {block(), std::vector<KeyTable>(layer.kv_heads, KeyTable(format, layer.shape.key_dim))};
    }
    return state;
  }

  void plan(const LayerQueries& queries, LandmarkState& state, ThreadPool& pool) const override {
    const PagedKv& kv = *queries.kv;
    LandmarkKeys& layer = state.layers.at(queries.layer);
    const int64_t blocks = kv.tokens() / block();
    if (layer.heads[0].size() == blocks) return;
    pool.parallel_for(layer.heads.size(), [&](size_t head, int) {
      add_keys(queries, static_cast<int>(head), blocks, layer.heads[head]);
    });
  }

  void select(const PageTable& table, const QueryBlock& query, const LandmarkState* state,
              Selection& selection) const override {
    const int64_t own = query.first / block();
    const auto add = [&](int64_t b, int64_t position) {
      selection.pages.push_back({static_cast<uint32_t>(b), position, table[b].mask, -1});
    };
    if (own <= topk_) {
      for (int64_t b = 0; b <= own; ++b) add(b, table[b].position);
      return;
    }
    const int64_t base = table[own].position - (topk_ + 1) * block();
    const std::vector<int64_t> selected =
        top_scores(largest_shares(state->layers.at(query.layer).heads[query.head], table, query, own, base), topk_);
    for (int64_t i = 0; i < std::ssize(selected); ++i) {
      const int64_t index = selected[i] >= own - topk_ ? i + 1 : i;
      add(selected[i], original_positions_ ? table[selected[i]].position : base + index * block());
    }
    add(own, table[own].position);
  }

 private:
  int64_t block() const { return context().landmarks.block(); }

  /// Adds the keys of new landmarks: as stored in their pages for compacted positions; for original positions,
  /// rotated by their positions relative to the start of the sequence.
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
  static void rotate(const Kernels& kernels, float* key, const PositionRotations& rotations, int64_t position,
                     float* spare) {
    if (rotations.pairs() == 0) return;
    const PositionRotations::View rotation = rotations.at(position, spare);
    kernels.rotate_pairs(key, rotation.cos, rotation.sin, rotations.pairs());
  }

  /// Returns [count]: for blocks [0, count), the largest probability that any query gives the block's landmark in a
  /// softmax over these landmarks. base: the first of the compacted positions.
  std::vector<float> largest_shares(const KeyTable& keys, const PageTable& table, const QueryBlock& query,
                                    int64_t count, int64_t base) const {
    const int queries = query.rows * query.group;
    const int dim = query.kv->shape().key_dim;
    std::vector<float> rotated(query.queries, query.queries + static_cast<int64_t>(queries) * dim);
    inverse_rotate(*query.kernels, query.kv->rotations(), original_positions_ ? table.front().position : base, dim,
                   rotated);
    const int64_t stride = keys.size();  // all landmarks, those after these rows included
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

  /// Sets the scores of the `topk` newest of `count` landmarks, at their own positions.
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
  return {
      {.name = "landmark",
       .summary =
           "for models with landmark tokens: the blocks whose landmarks score highest, and the current block",
       .paper = "Landmark Attention: Random-Access Infinite Context Length for Transformers, 2023",
       .needs = "a model trained with landmarks",
       .time = "O(topk * block + n / block) per token; up to one block of rows shares a selection",
       .memory = "O(n): nothing is evicted; a copy of each landmark's key",
       .parameters =
           {topk_parameter(
                {.value = "4",
                 .min = 1,
                 .max = 1e9,
                 .summary =
                     "past blocks visible to a block of queries; more is closer to dense attention and slower"}),
            positions_parameter(
                "compacted", {"compacted", "original"},
                "compacted: past blocks appear just before the query's block; original: at their own positions")},
       .capabilities = {.needs_host_pages = true, .works_with_landmarks = true}},
      [](const Values& values) { return std::make_unique<Landmark>(values); }};
}

}  // namespace fathom
