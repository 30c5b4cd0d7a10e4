// Clusters the keys of a text. A query attends to the clusters whose estimated attention is above a threshold.
#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "attend/key_clusters.h"
#include "attend/methods.h"
#include "attend/query_tail.h"
#include "attend/stateful_selector.h"
#include "attend/token_set.h"
#include "base/error.h"

namespace fathom {
namespace {

constexpr int64_t kTail = 100;  // newest tokens of the text: always visible, and their queries set the threshold

/// The state of one layer.
struct SqueezedLayer {
  QueryTail tail;
  int64_t context = 0;                                    // length of the sequence when the clusters were made
  int64_t position = 0;                                   // position of the sequence at the latest pass
  float threshold = 0;                                    // clusters with a larger estimated share are visible
  std::vector<std::shared_ptr<const KeyClusters>> heads;  // [kv_heads]; empty: no clusters yet
  std::vector<std::vector<uint64_t>>
      masks;  // [kv_heads, entries] clustered tokens visible to the newest pass, not saved

  void clear() {
    context = 0;
    heads.clear();
    masks.clear();
  }
  void rewind(int64_t tokens) {
    tail.rewind(tokens);
    if (context > tokens) clear();
  }
  size_t bytes() const {
    size_t bytes = bytes_of(masks);
    for (const auto& clusters : heads) bytes += fair_share(clusters, clusters->bytes());
    return bytes;
  }
  void save(ByteWriter& out, const SequenceLayer& layer) const {
    tail.save(out, layer);
    out.add(context);
    out.add(position);
    out.add(threshold);
    out.add(static_cast<int32_t>(heads.size()));
    for (const auto& clusters : heads) clusters->save(out);
  }
  void load(ByteReader& in, const SequenceLayer& layer) {
    tail.load(in, layer);
    context = in.take_int("clustered tokens", 0, layer.tokens());
    position = in.take<int64_t>();
    threshold = in.take<float>();
    const int count = layer.take_heads(in);
    for (int head = 0; head < count; ++head) {
      KeyClusters clusters{0, {}, {}, KeyTable(PageFormat::kF32, layer.key_dim())};
      clusters.load(in, layer, head, context);
      heads.push_back(std::make_shared<const KeyClusters>(std::move(clusters)));
    }
  }
};
using SqueezedState = LayerStates<SqueezedLayer>;

/// The estimated attention probability of each key of a cluster, and the number of its keys.
struct ClusterShare {
  float share;
  int64_t keys;
};

/// Returns the `pruned` quantile of the shares of all keys, interpolated linearly between neighbouring keys.
float quantile(std::vector<ClusterShare> shares, double pruned) {
  if (shares.empty()) return 0;
  std::ranges::sort(shares, {}, &ClusterShare::share);
  int64_t keys = 0;
  for (const ClusterShare& s : shares) keys += s.keys;
  const auto share_of = [&](int64_t key) {
    for (const ClusterShare& s : shares) {
      if ((key -= s.keys) < 0) return s.share;
    }
    return shares.back().share;
  };
  const double at = pruned * static_cast<double>(keys - 1);
  const auto below = static_cast<int64_t>(at);
  return std::lerp(share_of(below), share_of(below + 1), static_cast<float>(at - static_cast<double>(below)));
}

class Squeezed final : public LayeredSelector<SqueezedLayer> {
 public:
  explicit Squeezed(const Values& values)
      : pruned_(values.number("pruned")),
        clusters_(values.number("clusters")),
        min_context_(values.integer("min_context")),
        iterations_(static_cast<int>(values.integer("iterations"))) {}

  void plan(const LayerQueries& queries, SqueezedState& state, ThreadPool& pool) const override {
    if (pruned_ == 0) return;
    SqueezedLayer& layer = state.layers.at(queries.layer);
    const int64_t position = queries.kv->table(0).front().position;
    if (layer.position != position) layer.clear();  // means are rotated to their positions
    if (is_due(layer, queries.first)) make_clusters(state, queries, pool);
    select_clusters(layer, queries, pool);
    layer.tail.add(queries, kTail);
    layer.position = position;
  }

  void select(const PageTable& table, const QueryBlock& block, const SqueezedState* state,
              Selection& selection) const override {
    TokenSet visible(table);
    const SqueezedLayer* layer = state ? &state->layers.at(block.layer) : nullptr;
    if (!layer || layer->masks.empty()) {
      visible.add(0, block.first + block.rows);
      return visible.add_to(selection);
    }
    const std::vector<uint64_t>& masks = layer->masks[block.head];
    for (uint32_t s = 0; s < masks.size(); ++s) visible.add(s, masks[s]);
    visible.add(layer->heads[block.head]->end, block.first + block.rows);
    visible.add_to(selection);
  }

 private:
  /// Returns whether clusters must be made: when the text is long enough, and again when its length has doubled.
  bool is_due(const SqueezedLayer& layer, int64_t context) const {
    return context >= min_context_ && context >= 2 * layer.context;
  }

  /// Makes the clusters of all layers that need them and whose newest queries are known. These layers share one
  /// threshold, so layers and heads with more important keys get a larger part of the budget. A layer that was read
  /// before the method was enabled has no such queries. It is clustered when its own plan() runs, and the queries
  /// of that pass set its own threshold.
  void make_clusters(SqueezedState& state, const LayerQueries& queries, ThreadPool& pool) const {
    std::vector<int> due;
    const auto is_known = [&](const SqueezedLayer& layer) {
      return layer.tail.rows() > 0 && layer.tail.end() == queries.first;
    };
    if (is_known(state.layers[queries.layer])) {
      for (int i = 0; i < context().layers; ++i)
        if (is_known(state.layers[i]) && is_due(state.layers[i], queries.first)) due.push_back(i);
    } else {
      due.push_back(queries.layer);
      state.layers[queries.layer].tail.add(queries, kTail);
    }
    struct LayerHead {
      int layer, head;
    };
    std::vector<LayerHead> layer_heads;
    for (const int i : due) {
      state.layers[i].clear();
      state.layers[i].context = queries.first;
      state.layers[i].heads.resize(queries.sequence->kv(i).heads());
      for (int head = 0; head < queries.sequence->kv(i).heads(); ++head) layer_heads.push_back({i, head});
    }
    std::vector<std::vector<ClusterShare>> shares(layer_heads.size());
    pool.parallel_for(layer_heads.size(), [&](size_t i, int) {
      SqueezedLayer& layer = state.layers[layer_heads[i].layer];
      const PagedKv& kv = queries.sequence->kv(layer_heads[i].layer);
      const int head = layer_heads[i].head, group = context().attention[layer_heads[i].layer].heads / kv.heads();
      auto made = std::make_shared<const KeyClusters>(
          make_key_clusters(*queries.kernels, kv, head, queries.first - kTail, clusters_, iterations_));
      shares[i] = shares_of(*queries.kernels, *made, layer.tail.of_heads(head * group, group), layer.tail.rows(),
                            group, queries.scale);
      layer.heads[head] = std::move(made);
    });
    std::vector<ClusterShare> all;
    for (const std::vector<ClusterShare>& some : shares) all.insert(all.end(), some.begin(), some.end());
    const float threshold = quantile(std::move(all), pruned_);
    for (const int i : due) state.layers[i].threshold = threshold;
  }

  static std::vector<ClusterShare> shares_of(const Kernels& kernels, const KeyClusters& clusters,
                                             const std::vector<float>& queries, int64_t rows, int group,
                                             float scale) {
    const std::vector<float> shares = cluster_shares(kernels, clusters, queries, rows, group, scale);
    std::vector<ClusterShare> all;
    for (int64_t c = 0; c < clusters.size(); ++c)  // NaN has no order and would break the sorting in quantile()
      all.push_back({std::isnan(shares[c]) ? 0 : shares[c], clusters.members(c)});
    return all;
  }

  /// Makes one selection for all rows of a pass.
  static void select_clusters(SqueezedLayer& layer, const LayerQueries& queries, ThreadPool& pool) {
    layer.masks.clear();
    if (layer.heads.empty()) return;
    const int group = queries.group(), dim = queries.kv->shape().key_dim;
    layer.masks.resize(layer.heads.size());
    pool.parallel_for(layer.heads.size(), [&](size_t head, int) {
      std::vector<float> rows(queries.rows * group * dim), spare(dim);
      for (int64_t i = 0; i < queries.rows * group; ++i)
        rotate_query(queries, i / group, static_cast<int>(head * group + i % group), spare.data(),
                     rows.data() + i * dim);
      const KeyClusters& clusters = *layer.heads[head];
      const std::vector<float> shares =
          cluster_shares(*queries.kernels, clusters, rows, queries.rows, group, queries.scale);
      std::vector<uint64_t>& masks = layer.masks[head];
      masks.resize((clusters.tokens.empty() ? 0 : *std::ranges::max_element(clusters.tokens) / kPageTokens) + 1);
      for (int64_t c = 0; c < clusters.size(); ++c) {
        if (shares[c] <= layer.threshold) continue;
        for (int64_t i = clusters.begin[c]; i < clusters.begin[c + 1]; ++i)
          masks[clusters.tokens[i] / kPageTokens] |= uint64_t{1} << clusters.tokens[i] % kPageTokens;
      }
    });
  }

  double pruned_, clusters_;
  int64_t min_context_;
  int iterations_;
};

}  // namespace

SelectorEntry squeezed_method() {
  using Type = Parameter::Type;
  return {
      {.name = "squeezed",
       .summary = "keys of the text in clusters; a query attends to the clusters with enough estimated attention",
       .paper = "Squeezed Attention: Accelerating Long Context Length LLM Inference, 2024",
       .needs = "any model",
       .time = "O(clusters · n + (1 − pruned) · n) per token; O(clusters · n² · iterations) once",
       .memory = "O(n): nothing is evicted; the default clusters take 1/20 more for their means",
       .parameters = {{"pruned",
                       Type::kFloat,
                       "0.7",
                       "share of the text's keys left out; more is faster and less accurate",
                       0,
                       1,
                       {}},
                      {"clusters",
                       Type::kFloat,
                       "0.05",
                       "clusters per token of the text; more selects more finely and scores more slowly",
                       0.0001,
                       1,
                       {}},
                      {.name = "min_context",
                       .type = Type::kInt,
                       .default_value = "1k",
                       .summary =
                           "shorter texts are attended to in full; clusters are rebuilt when the text has doubled",
                       .min = kTail + 1,
                       .max = 1e12,
                       .old_names = {"least"}},
                      {"iterations",
                       Type::kInt,
                       "10",
                       "maximum steps of k-means; more gives tighter clusters, which take longer to make",
                       1,
                       1000,
                       {}}},
       .capabilities = {.needs_host_pages = true, .works_on_recurrent = true, .works_with_drafts = true}},
      [](const Values& values) { return std::make_unique<Squeezed>(values); }};
}

}  // namespace fathom
