// Selects blocks of tokens by an upper bound of their keys' scores, computed from each dimension's minimum and
// maximum.
#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "attend/methods.h"
#include "attend/page_blocks.h"
#include "attend/stateful_selector.h"
#include "attend/token_set.h"
#include "base/aligned.h"
#include "base/common_parameters.h"
#include "kernels/kernels.h"
#include "memory/page_metadata.h"

namespace fathom {
namespace {

constexpr int kMaxRows = 16;  // rows of a prefill block whose queries are used

/// Returns the largest bfloat16 that is not above x.
uint16_t rounded_down(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  const bool cut = (bits & 0xffff) != 0 && std::isfinite(x);
  return static_cast<uint16_t>((bits >> 16) + (cut && std::signbit(x) ? 1 : 0));
}
/// Returns the smallest bfloat16 that is not below x.
uint16_t rounded_up(float x) { return static_cast<uint16_t>(rounded_down(-x) ^ 0x8000); }

/// Queries in the layout of BoundTask: each number is repeated for each block of a page.
struct SpreadQueries {
  AlignedBuffer<float> below, above;  // [count, n] the negative and the positive parts
  SpreadQueries(const std::vector<float>& queries, int64_t dim, int blocks, int64_t n)
      : below(queries.size() / dim * n), above(below.size()) {
    std::ranges::fill(below.span(), 0.0f);
    std::ranges::fill(above.span(), 0.0f);
    for (int64_t i = 0; i < std::ssize(queries); ++i) {
      const int64_t at = i / dim * n + i % dim * blocks;
      std::fill_n(below.data() + at, blocks, std::min(queries[i], 0.0f));
      std::fill_n(above.data() + at, blocks, std::max(queries[i], 0.0f));
    }
  }
};

/// The bounds of a layer, stored as page metadata for each key/value head: the minimum and maximum of each
/// dimension over the rotated keys of each block of a page. The layout is that of BoundTask: dimension by
/// dimension, with the blocks of a dimension adjacent.
struct LayerBounds {
  static constexpr bool kDetectsMovedTokens = true;
  std::shared_ptr<MetadataPool> pool;  // of records for the layer's key width; null: the layer has no attention
  std::vector<PageMetadata> bounds;    // [kv_heads]; empty: the layer was not read yet, or is dense

  void rewind(int64_t /*tokens*/) {}  // PageMetadata detects changed pages itself
  size_t bytes() const {
    size_t bytes = 0;
    for (const PageMetadata& head : bounds) bytes += head.bytes();
    return bytes;
  }
  void save(ByteWriter& out, const SequenceLayer& layer) const {
    out.add(static_cast<int32_t>(bounds.size()));
    for (int head = 0; head < std::ssize(bounds); ++head) bounds[head].save(out, *layer.kv(), head);
  }
  void load(ByteReader& in, const SequenceLayer& layer) {
    const int heads = layer.take_heads(in);
    for (int head = 0; head < heads; ++head) bounds.emplace_back(pool).load(in, *layer.kv(), head);
  }
};
using QuestState = LayerStates<LayerBounds>;

class Quest final : public LayeredSelector<LayerBounds> {
 public:
  explicit Quest(const Values& values)
      : budget_(read_budget(values)),
        block_(read_page_block("quest", values, "block", 16)),
        dense_layers_(values.integer("dense_layers")) {}

  void attach(const AttendContext& context) override {
    LayeredSelector::attach(context);
    pools_.resize(context.layers);
    for (int layer = 0; layer < context.layers; ++layer) {
      const int dim = context.attention[layer].shape.key_dim;
      for (int other = 0; other < layer && !pools_[layer]; ++other)
        if (context.attention[other].shape.key_dim == dim) pools_[layer] = pools_[other];
      if (!pools_[layer] && dim > 0) pools_[layer] = std::make_shared<MetadataPool>(words(dim) * sizeof(uint32_t));
    }
  }

  std::unique_ptr<QuestState> make_state() const override {
    auto state = LayeredSelector::make_state();
    for (int layer = 0; layer < context().layers; ++layer) state->layers[layer].pool = pools_[layer];
    return state;
  }

  void plan(const LayerQueries& queries, QuestState& state, ThreadPool& pool) const override {
    if (queries.layer < dense_layers_) return;
    LayerBounds& layer = state.layers.at(queries.layer);
    std::vector<PageMetadata>& bounds = layer.bounds;
    const PagedKv& kv = *queries.kv;
    while (std::ssize(bounds) < kv.heads()) bounds.emplace_back(layer.pool);
    std::vector<int> stale;  // heads whose metadata is not current
    for (int head = 0; head < kv.heads(); ++head)
      if (!bounds[head].current(kv, head)) stale.push_back(head);
    pool.parallel_for(stale.size(), [&](size_t i, int) {
      bounds[stale[i]].update(kv, stale[i], [&](const PageEntry& entry, std::byte* record) {
        make_record(*queries.kernels, kv, entry, record);
      });
    });
  }

  void select(const PageTable& table, const QueryBlock& block, const QuestState* state,
              Selection& selection) const override {
    PageBudget budget = budget_;
    const bool dense = block.layer < dense_layers_;
    if (dense) budget.share = 1;
    const int dim = block.kv->shape().key_dim;
    const int64_t n = words(dim);
    const SpreadQueries queries(sampled_queries(block, dim, kMaxRows), dim, blocks(), n);
    const auto count = static_cast<int>(queries.below.size() / n);
    const PageMetadata* bounds = state && !dense ? &state->layers.at(block.layer).bounds.at(block.head) : nullptr;
    std::vector<std::byte> own(bounds ? 0 : n * sizeof(uint32_t));
    const auto score = [&](std::span<const uint32_t> entries, float* scores) {
      for (size_t i = 0, pages = 1; i < entries.size(); i += pages) {
        const uint32_t s = entries[i];
        pages = bounds ? PageMetadata::contiguous_records(entries.subspan(i)) : 1;
        if (!bounds) make_record(*block.kernels, *block.kv, table[s], own.data());
        const std::byte* records = bounds ? (*bounds)[s] : own.data();
        block.kernels->largest_bounds({reinterpret_cast<const uint32_t*>(records), static_cast<int64_t>(pages),
                                       queries.below.data(), queries.above.data(), n, count, blocks(),
                                       scores + i * blocks()});
      }
    };
    select_page_blocks(table, block, budget, block_, score, selection);
  }

 private:
  int blocks() const { return kPageTokens / block_; }

  /// Returns the number of words of a record for keys of this width.
  int64_t words(int dim) const {
    const int64_t words = static_cast<int64_t>(dim) * blocks();
    return (words + kBoundWords - 1) / kBoundWords * kBoundWords;
  }

  void make_record(const Kernels& kernels, const PagedKv& kv, const PageEntry& entry, std::byte* record) const {
    const int dim = kv.shape().key_dim;
    std::vector<float> keys, least(dim), largest(dim);
    read_rotated(kernels, kv, entry, keys);
    auto* out = reinterpret_cast<uint32_t*>(record);
    std::fill_n(out, words(dim), 0u);
    for (int b = 0; b < blocks(); ++b) {
      const float* key = keys.data() + b * block_ * dim;
      std::copy_n(key, dim, least.begin());
      std::copy_n(key, dim, largest.begin());
      for (int t = 1; t < block_; ++t) {
        key += dim;
        for (int64_t d = 0; d < dim; ++d) {
          least[d] = std::min(least[d], key[d]);
          largest[d] = std::max(largest[d], key[d]);
        }
      }
      for (int64_t d = 0; d < dim; ++d)
        out[d * blocks() + b] = rounded_down(least[d]) | static_cast<uint32_t>(rounded_up(largest[d])) << 16;
    }
  }

  PageBudget budget_;
  int block_;
  int64_t dense_layers_;
  std::vector<std::shared_ptr<MetadataPool>>
      pools_;  // [layers] record pools, shared by layers of the same key width
};

}  // namespace

SelectorEntry quest_method() {
  using Type = Parameter::Type;
  std::vector<Parameter> parameters = budget_parameters({.tokens = 2048, .sink = 0, .window = 64});
  parameters.push_back(
      block_parameter({.value = "16",
                       .min = 16,
                       .max = 64,
                       .summary = "tokens selected together: 16, 32 or 64; larger is faster and less selective"}));
  parameters.push_back({"dense_layers",
                        Type::kInt,
                        "2",
                        "first layers that attend to all tokens; more is closer to dense attention and slower",
                        0,
                        1e6,
                        {}});
  return {
      {.name = "quest",
       .summary =
           "the blocks of tokens whose keys could score highest, by an upper bound from their minimum and maximum",
       .paper = "Quest: Query-Aware Sparsity for Efficient Long-Context LLM Inference, 2024",
       .needs = "any model",
       .time = "O(n / block + budget) per token",
       .memory = "O(n): nothing is evicted; 1/block more for the bounds",
       .parameters = std::move(parameters),
       .capabilities = {.needs_host_pages = true,
                        .works_with_compacted = true,
                        .works_on_recurrent = true,
                        .works_with_drafts = true}},
      [](const Values& values) { return std::make_unique<Quest>(values); }};
}

}  // namespace fathom
