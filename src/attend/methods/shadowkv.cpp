// Selects chunks of the prompt by their mean keys. Outliers, the chunks whose keys differ most from their mean, are
// always visible. The keys of selected chunks may be rebuilt from a low-rank form.
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

constexpr int64_t kExactChunks = 4;  // newest chunks of the prompt, always visible

/// A chunk of consecutive tokens on one page.
struct KeyChunk {
  uint32_t entry;
  uint64_t mask;  // tokens of the chunk
};

/// The chunks of the prompt in one page table.
struct ChunkLandmarks {
  std::vector<KeyChunk> outliers;  // always visible
  std::vector<KeyChunk> chunks;    // chunks with a mean
  KeyTable means;                  // [chunks] means of the rotated keys

  size_t bytes() const { return bytes_of(outliers) + bytes_of(chunks) + means.bytes(); }
  void save(ByteWriter& out) const;
  /// entries: of the page table that may have chunks.
  void load(ByteReader& in, int64_t entries);
};

void save_chunks(const std::vector<KeyChunk>& chunks, ByteWriter& out) {
  out.add(uint64_t{chunks.size()});
  for (const KeyChunk& chunk : chunks) {
    out.add(chunk.entry);
    out.add(chunk.mask);
  }
}

std::vector<KeyChunk> load_chunks(ByteReader& in, int64_t entries) {
  std::vector<KeyChunk> chunks;
  for (auto left = in.take<uint64_t>(); left > 0; --left) {
    const auto entry = in.take<uint32_t>();
    in.check(entry < entries, "expected chunks of the first ", entries, " page-table entries, found entry ", entry);
    chunks.push_back({entry, in.take<uint64_t>()});
  }
  return chunks;
}

void ChunkLandmarks::save(ByteWriter& out) const {
  save_chunks(outliers, out);
  save_chunks(chunks, out);
  means.save(out);
}

void ChunkLandmarks::load(ByteReader& in, int64_t entries) {
  outliers = load_chunks(in, entries);
  chunks = load_chunks(in, entries);
  means.load(in, std::ssize(chunks));
  in.check(means.size() == std::ssize(chunks), "expected the means of ", chunks.size(), " chunks, found ",
           means.size());
}

/// The state of one key/value head.
struct ShadowKvHead {
  std::shared_ptr<const ChunkLandmarks> landmarks;
  std::vector<uint64_t> selected;  // [entries] tokens selected by the latest query, not saved
  RebuiltKeys rebuilt;             // empty without a rank, not saved
};

/// The state of one layer.
struct ShadowKvLayer {
  int64_t prompt = 0;                           // tokens of the prompt; 0: not known
  int64_t position = 0;                         // position of the sequence when the means were computed
  std::vector<ShadowKvHead> heads;              // empty: not computed yet
  int rank = 0;                                 // of the method
  std::shared_ptr<const LowRankKeys> low_rank;  // null: not computed yet, or without a rank

  void clear() {
    heads.clear();
    low_rank.reset();
  }
  void rewind(int64_t tokens) {
    if (prompt <= tokens) return;
    prompt = tokens;
    clear();
  }
  size_t bytes() const;
  void save(ByteWriter& out, const SequenceLayer& layer) const;
  void load(ByteReader& in, const SequenceLayer& layer);
};

size_t ShadowKvLayer::bytes() const {
  size_t bytes = low_rank ? fair_share(low_rank, low_rank->bytes()) : 0;
  for (const ShadowKvHead& head : heads) {
    bytes += bytes_of(head.selected) + head.rebuilt.bytes();
    if (head.landmarks) bytes += fair_share(head.landmarks, head.landmarks->bytes());
  }
  return bytes;
}

void ShadowKvLayer::save(ByteWriter& out, const SequenceLayer& /*layer*/) const {
  out.add(prompt);
  out.add(position);
  out.add(static_cast<int32_t>(heads.size()));
  for (const ShadowKvHead& head : heads) head.landmarks->save(out);
  out.add(int32_t{low_rank ? low_rank->rank() : 0});
  if (low_rank) low_rank->save(out);
}

void ShadowKvLayer::load(ByteReader& in, const SequenceLayer& layer) {
  prompt = in.take_int("tokens of the prompt", 0, layer.tokens());
  position = in.take<int64_t>();
  heads.resize(layer.take_heads(in));
  for (int head = 0; head < std::ssize(heads); ++head) {
    ChunkLandmarks landmarks{{}, {}, KeyTable(PageFormat::kBF16, layer.key_dim())};
    landmarks.load(in, std::min(layer.entries(head, prompt), layer.entries(0, prompt)));
    heads[head].landmarks = std::make_shared<const ChunkLandmarks>(std::move(landmarks));
  }
  const auto found = in.take<int32_t>();
  in.check(found == 0 || found == rank, "expected keys of rank ", rank, ", found ", found);
  if (found > 0) low_rank = std::make_shared<const LowRankKeys>(in, layer, prompt, rank);
}
using ShadowKvState = LayerStates<ShadowKvLayer>;

class ShadowKv final : public LayeredSelector<ShadowKvLayer> {
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
                 ", the width of a token's keys in a layer (", layer.kv_heads, " heads of ", dim, "), found ",
                 rank_);
    }
  }

  std::unique_ptr<ShadowKvState> make_state() const override {
    auto state = LayeredSelector::make_state();
    for (ShadowKvLayer& layer : state->layers) layer.rank = rank_;
    return state;
  }

  /// Tokens up to the last pass of several rows are the prompt. Without such a pass, the prompt is everything that
  /// was read before the method was enabled.
  void plan(const LayerQueries& queries, ShadowKvState& state, ThreadPool& pool) const override {
    ShadowKvLayer& layer = state.layers.at(queries.layer);
    if (queries.rows > 1) {
      layer.prompt = queries.first + queries.rows;
      return layer.clear();
    }
    if (layer.prompt == 0) layer.prompt = queries.first;
    find_landmarks(queries, layer, pool);
    const auto has_chunks = [](const ShadowKvHead& head) { return head.landmarks->means.size() > 0; };
    if (rank_ > 0 && !layer.low_rank && std::ranges::any_of(layer.heads, has_chunks)) {
      layer.low_rank = std::make_shared<const LowRankKeys>(queries, layer.prompt, rank_, pool);
    }
    pool.parallel_for(layer.heads.size(),
                      [&](size_t head, int) { select_chunks(queries, static_cast<int>(head), layer); });
  }

  void select(const PageTable& table, const QueryBlock& block, const ShadowKvState* state,
              Selection& selection) const override {
    TokenSet visible(table);
    const ShadowKvLayer* layer = state ? &state->layers.at(block.layer) : nullptr;
    if (block.rows > 1 || !layer || layer->heads.empty()) {
      visible.add(0, block.first + block.rows);
      return visible.add_to(selection);
    }
    for (uint32_t s = 0; s < table.size(); ++s)
      if (!is_chunked(table[s], layer->prompt)) visible.add(s, table[s].mask);
    const ShadowKvHead& head = layer->heads[block.head];
    for (const KeyChunk& chunk : head.landmarks->outliers) visible.add(chunk.entry, chunk.mask);
    for (uint32_t s = 0; s < head.selected.size(); ++s) visible.add(s, head.selected[s]);
    visible.add_to(selection);
    for (SelectedPage& page : selection.pages) page.keys = head.rebuilt.page(page.entry);
  }

 private:
  /// Returns whether the page's chunks can be selected: it must be full and precede the newest chunks of the
  /// prompt.
  bool is_chunked(const PageEntry& entry, int64_t prompt) const {
    return entry.filled == kPageTokens && entry.first + kPageTokens <= prompt - kExactChunks * chunk_;
  }

  /// Computes the means of the rotated keys. Recomputes them after the sequence was moved to another position.
  void find_landmarks(const LayerQueries& queries, ShadowKvLayer& layer, ThreadPool& pool) const {
    const PagedKv& kv = *queries.kv;
    const int64_t position = kv.table(0).front().position;
    if (!layer.heads.empty() && layer.position == position) return;
    layer.position = position;
    layer.heads = std::vector<ShadowKvHead>(kv.heads());
    pool.parallel_for(layer.heads.size(), [&](size_t head, int) {
      layer.heads[head].landmarks = std::make_shared<const ChunkLandmarks>(
          landmarks_of(*queries.kernels, kv, static_cast<int>(head), layer.prompt));
    });
  }

  /// Selects the chunks for the row and rebuilds their keys.
  void select_chunks(const LayerQueries& queries, int number, ShadowKvLayer& layer) const {
    const int dim = queries.kv->shape().key_dim, group = queries.group();
    std::vector<float> rotated(static_cast<size_t>(group) * dim), spare(dim);
    for (int q = 0; q < group; ++q)
      rotate_query(queries, 0, number * group + q, spare.data(), rotated.data() + q * dim);
    queries.kernels->scale(rotated.data(), queries.scale, std::ssize(rotated));
    const PageTable& table = queries.kv->table(number);
    ShadowKvHead& head = layer.heads[number];
    head.selected.assign(table.size(), 0);
    for (const int64_t i : best_chunks(*queries.kernels, *head.landmarks, rotated.data(), group)) {
      const KeyChunk& chunk = head.landmarks->chunks[i];
      head.selected[chunk.entry] |= chunk.mask;
    }
    for (size_t s = 0; s < table.size(); ++s) head.selected[s] &= table[s].mask;
    if (layer.low_rank) head.rebuilt.keep(queries, number, head.selected, *layer.low_rank);
  }

  ChunkLandmarks landmarks_of(const Kernels& kernels, const PagedKv& kv, int head, int64_t prompt) const {
    const PageTable& table = kv.table(head);
    const PositionRotations& rotations = kv.rotations();
    const int dim = kv.shape().key_dim;
    std::vector<KeyChunk> chunks;
    std::vector<float> means, cosines, keys(static_cast<size_t>(kPageTokens) * dim), spare(dim);
    for (uint32_t s = 0; s < table.size(); ++s) {
      const PageEntry& entry = table[s];
      if (entry.mask == 0 || !is_chunked(entry, prompt)) continue;
      read_keys(kv.shape().format, dim, kv.store().keys(entry.page), kPageTokens, keys.data());
      for (int first = 0; first < kPageTokens; first += chunk_) {
        const KeyChunk chunk{s, page_bits(first, first + chunk_)};
        if ((entry.mask & chunk.mask) == 0) continue;
        chunks.push_back(chunk);
        means.resize(means.size() + dim);
        float* mean = means.data() + means.size() - dim;
        cosines.push_back(mean_key(keys.data() + static_cast<int64_t>(first) * dim, dim, mean));
        const PositionRotations::View rotation = rotations.at(entry.position, spare.data());
        kernels.rotate_pairs(mean, rotation.cos, rotation.sin, rotations.pairs());
      }
    }
    return split_outliers(chunks, means, cosines, dim);
  }

  /// Adds the mean of a chunk's keys to `mean`, [dim], and returns the lowest cosine of a key with it.
  float mean_key(const float* keys, int dim, float* mean) const {
    for (int t = 0; t < chunk_; ++t)
      for (int d = 0; d < dim; ++d) mean[d] += keys[t * dim + d] / static_cast<float>(chunk_);
    double least = 1;
    for (int t = 0; t < chunk_; ++t)
      least = std::min(least, cosine_of(std::span(mean, dim), std::span(keys + t * dim, dim)));
    return static_cast<float>(least);
  }

  /// Separates the outliers: the chunks with the lowest cosines.
  ChunkLandmarks split_outliers(const std::vector<KeyChunk>& chunks, const std::vector<float>& means,
                                const std::vector<float>& cosines, int dim) const {
    std::vector<size_t> order(chunks.size());
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, {}, [&](size_t i) { return cosines[i]; });
    const size_t count = std::min<size_t>(outliers_, order.size());
    std::ranges::sort(order.begin() + count, order.end());
    ChunkLandmarks landmarks{{}, {}, KeyTable(PageFormat::kBF16, dim)};
    for (size_t i = 0; i < count; ++i) landmarks.outliers.push_back(chunks[order[i]]);
    for (size_t i = count; i < order.size(); ++i) {
      landmarks.chunks.push_back(chunks[order[i]]);
      landmarks.means.add(means.data() + order[i] * dim);
    }
    return landmarks;
  }

  /// Returns the chunks with the highest probabilities in a softmax over the means, with the maximum over the heads
  /// that share the keys.
  std::vector<int64_t> best_chunks(const Kernels& kernels, const ChunkLandmarks& landmarks, const float* queries,
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
  int chunk_;  // tokens of a chunk
  int rank_;
};

}  // namespace

SelectorEntry shadowkv_method() {
  using Type = Parameter::Type;
  return {
      {.name = "shadowkv",
       .summary = "generated tokens attend to the chunks of the prompt whose mean key scores highest",
       .paper = "ShadowKV: KV Cache in Shadows for High-Throughput Long-Context LLM Inference, 2024",
       .needs = "any model; prompts are read in full",
       .time = "O(n / block + budget + generated) per token. With rank r also O(n·w² + w³) after a prompt, where w "
               "is the width of a token's keys in a layer, and r·w multiplications for each newly selected token",
       .memory = "O(n): nothing is evicted; 1/(2·block) more for the means. With rank r, 4·r bytes more per token "
                 "and layer, and the rebuilt keys of pages with selected chunks; a rank saves no memory, because "
                 "pages still hold the original keys: it shows how low-rank keys change the answers",
       .parameters =
           {budget_parameter(
                {.value = "2k",
                 .min = 8,
                 .summary = "tokens of the prompt selected; more is closer to dense attention and slower"}),
            {"outliers",
             Type::kInt,
             "48",
             "chunks least similar to their own mean, always visible; more is more accurate and slower",
             0,
             1e9,
             {}},
            block_parameter({.value = "8",
                             .min = 8,
                             .max = 64,
                             .summary = "tokens of a chunk: 8, 16, 32 or 64; larger is faster and less selective "
                                        "(16 takes half the time of 8)",
                             .old_names = {"chunk"}}),
            {"rank",
             Type::kInt,
             "0",
             "rank of the keys rebuilt for selected chunks (paper: 160); more is more accurate; 0: the stored keys",
             0,
             1e6,
             {}}},
       .capabilities = {.needs_host_pages = true, .works_on_recurrent = true, .works_with_drafts = true}},
      [](const Values& values) { return std::make_unique<ShadowKv>(values); }};
}

}  // namespace fathom
