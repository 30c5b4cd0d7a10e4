// Chunks of the prompt by their mean keys; chunks that a mean does not describe are always seen. The keys of chosen
// chunks may be rebuilt from a form of low rank.
#include <algorithm>
#include <memory>
#include <numeric>
#include <vector>

#include "attend/key_scores.h"
#include "attend/low_rank_keys.h"
#include "attend/methods.h"
#include "attend/page_blocks.h"
#include "attend/stateful_selector.h"
#include "attend/token_set.h"
#include "base/common_parameters.h"
#include "base/error.h"

namespace fathom {
namespace {

constexpr int64_t kExactChunks = 4;  // newest of the prompt, always seen

/// A chunk of a page.
struct Chunk {
  uint32_t entry;
  uint64_t mask;  // its tokens
};

/// The chunks of the prompt in one table.
struct Landmarks {
  std::vector<Chunk> outliers;  // always seen
  std::vector<Chunk> chunks;    // of the means
  KeyTable means;               // of rotated keys
};

/// Of one key/value head.
struct HeadState {
  std::shared_ptr<const Landmarks> landmarks;
  std::vector<uint64_t> chosen;  // tokens of each entry, by the latest query
  RebuiltKeys rebuilt;           // empty without a rank
};

struct LayerState {
  int64_t prompt = 0;                           // tokens of it; 0: not known
  int64_t position = 0;                         // of the sequence when the means were made
  std::vector<HeadState> heads;                 // empty: not made yet
  std::shared_ptr<const LowRankKeys> low_rank;  // null: not made yet, or without a rank

  void forget() {
    heads.clear();
    low_rank.reset();
  }
  void rewind(int64_t tokens) {
    if (prompt <= tokens) return;
    prompt = tokens;
    forget();
  }
};
using State = LayerStates<LayerState>;

class ShadowKv final : public LayeredSelector<LayerState> {
 public:
  explicit ShadowKv(const Values& values)
      : budget_(values.integer("budget")),
        outliers_(values.integer("outliers")),
        chunk_(read_page_block("shadowkv", values, "block", 8)),
        rank_(static_cast<int>(values.integer("rank"))) {}

  void attach(const AttendContext& context) override {
    LayeredSelector::attach(context);
    for (const AttendLayer& layer : context.attention) {
      const int dim = layer.shape.key_dim, width = layer.kv_heads * dim;
      if (layer.heads == 0 || rank_ <= width) continue;
      fail_usage("attend method shadowkv: rank: expected at most ", width,
                 ", the numbers of a token's keys in a layer (", layer.kv_heads, " heads of ", dim, "), found ",
                 rank_);
    }
  }

  /// What is read several rows at a time is prompt. Without any, it is all there was when this method began.
  void plan(const LayerQueries& queries, State& state, ThreadPool& pool) const override {
    LayerState& layer = state.layers.at(queries.layer);
    if (queries.rows > 1) {
      layer.prompt = queries.first + queries.rows;
      return layer.forget();
    }
    if (layer.prompt == 0) layer.prompt = queries.first;
    find_landmarks(queries, layer, pool);
    const auto has_chunks = [](const HeadState& head) { return head.landmarks->means.size() > 0; };
    if (rank_ > 0 && !layer.low_rank && std::ranges::any_of(layer.heads, has_chunks)) {
      layer.low_rank = std::make_shared<const LowRankKeys>(queries, layer.prompt, rank_, pool);
    }
    pool.parallel_for(layer.heads.size(),
                      [&](size_t head, int) { choose(queries, static_cast<int>(head), layer); });
  }

  void select(const PageTable& table, const QueryBlock& block, const State* state,
              Selection& selection) const override {
    TokenSet choice(table);
    const LayerState* layer = state ? &state->layers.at(block.layer) : nullptr;
    if (block.rows > 1 || !layer || layer->heads.empty()) {
      choice.add(0, block.first + block.rows);
      return choice.add_to(selection);
    }
    for (uint32_t s = 0; s < table.size(); ++s)
      if (!is_chunked(table[s], layer->prompt)) choice.add(s, table[s].mask);
    const HeadState& head = layer->heads[block.head];
    for (const Chunk& chunk : head.landmarks->outliers) choice.add(chunk.entry, chunk.mask);
    for (uint32_t s = 0; s < head.chosen.size(); ++s) choice.add(s, head.chosen[s]);
    choice.add_to(selection);
    for (SelectedPage& page : selection.pages) page.keys = head.rebuilt.page(page.entry);
  }

 private:
  /// Whether the page's chunks are chosen among: full pages of the prompt but for its newest chunks.
  bool is_chunked(const PageEntry& entry, int64_t prompt) const {
    return entry.filled == kPageTokens && entry.first + kPageTokens <= prompt - kExactChunks * chunk_;
  }

  /// Of rotated keys: anew when the sequence has moved.
  void find_landmarks(const LayerQueries& queries, LayerState& layer, ThreadPool& pool) const {
    const PagedKv& kv = *queries.kv;
    const int64_t position = kv.table(0).front().position;
    if (!layer.heads.empty() && layer.position == position) return;
    layer.position = position;
    layer.heads = std::vector<HeadState>(kv.heads());
    pool.parallel_for(layer.heads.size(), [&](size_t head, int) {
      layer.heads[head].landmarks = std::make_shared<const Landmarks>(
          landmarks_of(*queries.kernels, kv, static_cast<int>(head), layer.prompt));
    });
  }

  /// The chunks that the one row looks at, and their keys.
  void choose(const LayerQueries& queries, int number, LayerState& layer) const {
    const int dim = queries.kv->shape().key_dim, group = queries.group();
    std::vector<float> rotated(static_cast<size_t>(group) * dim), spare(dim);
    for (int q = 0; q < group; ++q)
      rotate_query(queries, 0, number * group + q, spare.data(), rotated.data() + q * dim);
    queries.kernels->scale(rotated.data(), queries.scale, std::ssize(rotated));
    const PageTable& table = queries.kv->table(number);
    HeadState& head = layer.heads[number];
    head.chosen.assign(table.size(), 0);
    for (const int64_t i : best_chunks(*queries.kernels, *head.landmarks, rotated.data(), group)) {
      const Chunk& chunk = head.landmarks->chunks[i];
      head.chosen[chunk.entry] |= chunk.mask;
    }
    for (size_t s = 0; s < table.size(); ++s) head.chosen[s] &= table[s].mask;
    if (layer.low_rank) head.rebuilt.keep(queries, number, head.chosen, *layer.low_rank);
  }

  Landmarks landmarks_of(const Kernels& kernels, const PagedKv& kv, int head, int64_t prompt) const {
    const PageTable& table = kv.table(head);
    const PositionRotations& rotations = kv.rotations();
    const int dim = kv.shape().key_dim;
    std::vector<Chunk> chunks;
    std::vector<float> means, alike, keys(static_cast<size_t>(kPageTokens) * dim), spare(dim);
    for (uint32_t s = 0; s < table.size(); ++s) {
      const PageEntry& entry = table[s];
      if (entry.mask == 0 || !is_chunked(entry, prompt)) continue;
      read_keys(kv.shape().format, dim, kv.store().keys(entry.page), kPageTokens, keys.data());
      for (int first = 0; first < kPageTokens; first += chunk_) {
        const Chunk chunk{s, page_bits(first, first + chunk_)};
        if ((entry.mask & chunk.mask) == 0) continue;
        chunks.push_back(chunk);
        means.resize(means.size() + dim);
        float* mean = means.data() + means.size() - dim;
        alike.push_back(mean_key(keys.data() + static_cast<int64_t>(first) * dim, dim, mean));
        const PositionRotations::View rotation = rotations.at(entry.position, spare.data());
        kernels.rotate_pairs(mean, rotation.cos, rotation.sin, rotations.pairs());
      }
    }
    return part_outliers(chunks, means, alike, dim);
  }

  /// The mean of a chunk's keys, [dim]; returns the least cosine of a key with it.
  float mean_key(const float* keys, int dim, float* mean) const {
    for (int t = 0; t < chunk_; ++t)
      for (int d = 0; d < dim; ++d) mean[d] += keys[t * dim + d] / static_cast<float>(chunk_);
    double least = 1;
    for (int t = 0; t < chunk_; ++t)
      least = std::min(least, cosine_of(std::span(mean, dim), std::span(keys + t * dim, dim)));
    return static_cast<float>(least);
  }

  /// The chunks with the least cosines are outliers.
  Landmarks part_outliers(const std::vector<Chunk>& chunks, const std::vector<float>& means,
                          const std::vector<float>& alike, int dim) const {
    std::vector<size_t> order(chunks.size());
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, {}, [&](size_t i) { return alike[i]; });
    const size_t count = std::min<size_t>(outliers_, order.size());
    std::ranges::sort(order.begin() + count, order.end());
    Landmarks landmarks{{}, {}, KeyTable(PageFormat::kBF16, dim)};
    for (size_t i = 0; i < count; ++i) landmarks.outliers.push_back(chunks[order[i]]);
    for (size_t i = count; i < order.size(); ++i) {
      landmarks.chunks.push_back(chunks[order[i]]);
      landmarks.means.add(means.data() + order[i] * dim);
    }
    return landmarks;
  }

  /// By the softmax over the means, the largest of the heads that share the keys.
  std::vector<int64_t> best_chunks(const Kernels& kernels, const Landmarks& landmarks, const float* queries,
                                   int group) const {
    const int64_t n = landmarks.means.size();
    std::vector<float> scores(group * n);
    landmarks.means.score(kernels, queries, group, scores.data(), n);
    for (int q = 0; q < group; ++q) {
      softmax_scores(kernels, std::span(scores).subspan(q * n, n), 1);
      for (int64_t i = 0; i < n; ++i) scores[i] = std::max(scores[i], scores[q * n + i]);
    }
    return top_scores(std::span(scores).first(n), budget_ / chunk_);
  }

  int64_t budget_, outliers_;
  int chunk_;  // tokens
  int rank_;
};

}  // namespace

SelectorEntry shadowkv_method() {
  using Type = Parameter::Type;
  return {
      {.name = "shadowkv",
       .summary =
           "generated tokens see the prompt's chunks whose mean key scores highest, with their own keys or with "
           "keys rebuilt from a form of low rank",
       .paper = "ShadowKV: KV Cache in Shadows for High-Throughput Long-Context LLM Inference, 2024",
       .needs = "any model; prompts are read in full",
       .time =
           "O(n / block + budget + generated) per token; a rank r costs O(n·w² + w³) after a prompt, w the numbers "
           "of a token's keys in a layer, and r·w multiplications for each token that was not chosen before",
       .memory =
           "O(n): nothing is dropped; 1/(2·block) more for the means. A rank saves nothing here, since pages still "
           "hold their own keys: it shows what the method's low-rank keys do to answers. It takes 4·r bytes "
           "for a token and layer, and the rebuilt keys of pages with chosen chunks",
       .parameters =
           {budget_parameter({.value = "2k", .min = 8, .summary = "tokens of the prompt that are chosen"}),
            {"outliers", Type::kInt, "48", "chunks least like their mean, always seen", 0, 1e9, {}},
            block_parameter(
                {.value = "8",
                 .min = 8,
                 .max = 64,
                 .summary = "tokens of a chunk, chosen together: 8, 16, 32 or 64; 16 take half the time of 8",
                 .old_names = {"chunk"}}),
            {"rank",
             Type::kInt,
             "0",
             "of the keys of chosen chunks, before rotation and heads joined (the paper's: 160); 0: as "
             "they are, which is cheaper and better where keys are at hand",
             0,
             1e6,
             {}}},
       .capabilities = {.needs_host_pages = true, .works_on_recurrent = true}},
      [](const Values& values) { return std::make_unique<ShadowKv>(values); }};
}

}  // namespace fathom
