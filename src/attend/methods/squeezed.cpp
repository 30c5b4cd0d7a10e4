// Keys of a fixed context by clusters: those are read whose cluster could matter to the query.
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

constexpr int64_t kTail = 100;  // newest tokens of the context: always seen, and their queries set the threshold

struct LayerState {
  QueryTail tail;
  int64_t context = 0;                                    // tokens there were when the clusters were made
  int64_t position = 0;                                   // of the sequence then
  float threshold = 0;                                    // clusters with larger shares are seen
  std::vector<std::shared_ptr<const KeyClusters>> heads;  // empty: none yet
  std::vector<std::vector<uint64_t>> masks;  // [kv_heads, entries] of the newest pass: what is seen of the clusters

  void forget() {
    context = 0;
    heads.clear();
    masks.clear();
  }
  void rewind(int64_t tokens) {
    tail.rewind(tokens);
    if (context > tokens) forget();
  }
};
using State = LayerStates<LayerState>;

/// A cluster's share of attention for each of its keys, and how many they are.
struct Shared {
  float share;
  int64_t keys;
};

/// The share below or at which `pruned` of all keys lie; between two keys' shares in proportion.
float quantile(std::vector<Shared> shares, double pruned) {
  if (shares.empty()) return 0;
  std::ranges::sort(shares, {}, &Shared::share);
  int64_t keys = 0;
  for (const Shared& s : shares) keys += s.keys;
  const auto share_of = [&](int64_t key) {
    for (const Shared& s : shares) {
      if ((key -= s.keys) < 0) return s.share;
    }
    return shares.back().share;
  };
  const double at = pruned * static_cast<double>(keys - 1);
  const auto below = static_cast<int64_t>(at);
  return std::lerp(share_of(below), share_of(below + 1), static_cast<float>(at - static_cast<double>(below)));
}

class Squeezed final : public LayeredSelector<LayerState> {
 public:
  explicit Squeezed(const Values& values)
      : pruned_(values.number("pruned")),
        clusters_(values.number("clusters")),
        min_context_(values.integer("min_context")),
        iterations_(static_cast<int>(values.integer("iterations"))) {}

  void plan(const LayerQueries& queries, State& state, ThreadPool& pool) const override {
    if (pruned_ == 0) return;
    LayerState& layer = state.layers.at(queries.layer);
    const int64_t position = queries.kv->table(0).front().position;
    if (layer.position != position) layer.forget();  // means are rotated to their positions
    if (is_due(layer, queries.first)) make_clusters(state, queries, pool);
    choose(layer, queries, pool);
    layer.tail.add(queries, kTail);
    layer.position = position;
  }

  void select(const PageTable& table, const QueryBlock& block, const State* state,
              Selection& selection) const override {
    TokenSet choice(table);
    const LayerState* layer = state ? &state->layers.at(block.layer) : nullptr;
    if (!layer || layer->masks.empty()) {
      choice.add(0, block.first + block.rows);
      return choice.add_to(selection);
    }
    const std::vector<uint64_t>& masks = layer->masks[block.head];
    for (uint32_t s = 0; s < masks.size(); ++s) choice.add(s, masks[s]);
    choice.add(layer->heads[block.head]->end, block.first + block.rows);
    choice.add_to(selection);
  }

 private:
  /// When the context is long enough, and again when it has doubled.
  bool is_due(const LayerState& layer, int64_t context) const {
    return context >= min_context_ && context >= 2 * layer.context;
  }

  /// For all layers that are due and whose newest queries are known: they share one threshold, so that layers and
  /// heads get what they need of one budget. A layer read before this method began has no such queries: it is
  /// clustered when its rotation comes, and the queries of that pass set a threshold of its own.
  void make_clusters(State& state, const LayerQueries& queries, ThreadPool& pool) const {
    std::vector<int> due;
    const auto is_known = [&](const LayerState& layer) {
      return layer.tail.rows() > 0 && layer.tail.end() == queries.first;
    };
    if (is_known(state.layers[queries.layer])) {
      for (int i = 0; i < context().layers; ++i)
        if (is_known(state.layers[i]) && is_due(state.layers[i], queries.first)) due.push_back(i);
    } else {
      due.push_back(queries.layer);
      state.layers[queries.layer].tail.add(queries, kTail);
    }
    struct Part {
      int layer, head;
    };
    std::vector<Part> parts;
    for (const int i : due) {
      state.layers[i].forget();
      state.layers[i].context = queries.first;
      state.layers[i].heads.resize(queries.sequence->kv(i).heads());
      for (int head = 0; head < queries.sequence->kv(i).heads(); ++head) parts.push_back({i, head});
    }
    std::vector<std::vector<Shared>> shares(parts.size());
    pool.parallel_for(parts.size(), [&](size_t i, int) {
      LayerState& layer = state.layers[parts[i].layer];
      const PagedKv& kv = queries.sequence->kv(parts[i].layer);
      const int head = parts[i].head, group = context().attention[parts[i].layer].heads / kv.heads();
      auto made = std::make_shared<const KeyClusters>(
          make_key_clusters(*queries.kernels, kv, head, queries.first - kTail, clusters_, iterations_));
      shares[i] = shares_of(*queries.kernels, *made, layer.tail.of_heads(head * group, group), layer.tail.rows(),
                            group, queries.scale);
      layer.heads[head] = std::move(made);
    });
    std::vector<Shared> all;
    for (const std::vector<Shared>& some : shares) all.insert(all.end(), some.begin(), some.end());
    const float threshold = quantile(std::move(all), pruned_);
    for (const int i : due) state.layers[i].threshold = threshold;
  }

  static std::vector<Shared> shares_of(const Kernels& kernels, const KeyClusters& clusters,
                                       const std::vector<float>& queries, int64_t rows, int group, float scale) {
    const std::vector<float> shares = cluster_shares(kernels, clusters, queries, rows, group, scale);
    std::vector<Shared> all;
    for (int64_t c = 0; c < clusters.size(); ++c) all.push_back({shares[c], clusters.members(c)});
    return all;
  }

  /// The rows of a pass choose together.
  static void choose(LayerState& layer, const LayerQueries& queries, ThreadPool& pool) {
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
  return {{.name = "squeezed",
           .summary = "the context's keys whose clusters promise enough attention; clusters of one level",
           .paper = "Squeezed Attention: Accelerating Long Context Length LLM Inference, 2024",
           .needs = "any model",
           .time = "O(clusters · n + (1 − pruned) · n) per token; O(clusters · n² · iterations) once",
           .memory = "O(n): nothing is dropped; 1/20 more for the means",
           .parameters =
               {{"pruned", Type::kFloat, "0.7", "share of the context's keys that is left out", 0, 1, {}},
                {"clusters", Type::kFloat, "0.05", "clusters as a share of the context's tokens", 0.0001, 1, {}},
                {.name = "min_context",
                 .type = Type::kInt,
                 .default_value = "1k",
                 .summary = "tokens of the shortest context that is clustered; clustered again when it has doubled",
                 .min = kTail + 1,
                 .max = 1e12,
                 .old_names = {"least"}},
                {"iterations", Type::kInt, "10", "most steps of k-means", 1, 1000, {}}},
           .capabilities = {.needs_host_pages = true, .works_on_recurrent = true}},
          [](const Values& values) { return std::make_unique<Squeezed>(values); }};
}

}  // namespace fathom
