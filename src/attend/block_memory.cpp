#include "attend/block_memory.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <numeric>

#include "attend/token_set.h"
#include "base/common_parameters.h"

namespace fathom {
namespace {

// Blocks scored by one task: few enough that all threads get work, enough to outweigh the overhead of a task.
constexpr int64_t kScoredTogether = 64;

/// Calls body(i) for i in [0, count), on all threads if `parallel`.
template <class Body>
void for_each(size_t count, bool parallel, ThreadPool& pool, const Body& body) {
  if (parallel) return pool.parallel_for(count, [&](size_t i, int) { body(i); });
  for (size_t i = 0; i < count; ++i) body(i);
}

void add_to(float* sum, const float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) sum[i] += x[i];
}

/// Applies the inverse of a rotation to adjacent pairs.
void inverse_rotate(float* x, PositionRotations::View rotation, int pairs) {
  for (int i = 0; i < pairs; ++i) {
    const float even = x[2 * i], odd = x[2 * i + 1];
    x[2 * i] = even * rotation.cos[i] + odd * rotation.sin[i];
    x[2 * i + 1] = odd * rotation.cos[i] - even * rotation.sin[i];
  }
}

/// Adds x, rotated, to sum. x, sum: [dim].
void add_rotated(const float* x, int dim, PositionRotations::View rotation, int pairs, float* sum) {
  for (int i = 0; i < pairs; ++i) {
    sum[2 * i] += x[2 * i] * rotation.cos[i] - x[2 * i + 1] * rotation.sin[i];
    sum[2 * i + 1] += x[2 * i] * rotation.sin[i] + x[2 * i + 1] * rotation.cos[i];
  }
  add_to(sum + 2 * pairs, x + 2 * pairs, dim - 2 * pairs);
}

/// Calls body(entry, mask) in order for each page-table entry that holds tokens of the ranges before `end`. ranges:
/// ordered and disjoint.
template <class Body>
void for_entries(const PageTable& table, const std::vector<TokenRange>& ranges, int64_t end, const Body& body) {
  const auto entries = static_cast<uint32_t>(table.size());
  uint32_t current = entries;
  uint64_t mask = 0;
  for (const TokenRange& range : ranges) {
    const int64_t range_end = std::min(range.end, end);
    if (range.begin >= range_end) continue;
    const auto after = std::ranges::upper_bound(table, range.begin, {}, &PageEntry::first);
    for (auto entry_index = static_cast<uint32_t>(after - table.begin()) - 1;
         entry_index < entries && table[entry_index].first < range_end; ++entry_index) {
      if (entry_index != current) {
        if (current < entries) body(current, mask);
        current = entry_index;
        mask = 0;
      }
      mask |= page_bits(range.begin - table[entry_index].first, range_end - table[entry_index].first);
    }
  }
  if (current < entries) body(current, mask);
}

/// Adds pages to the selection of rows [begin, end) of a block of rows.
struct RowPages {
  const QueryBlock& block;
  int begin, end;
  Selection& selection;

  /// row_mask(sequence index of a row) returns the tokens of the page that are visible to the row. Without `by_row`
  /// all rows have the same mask.
  template <class RowMask>
  void add(uint32_t entry, int64_t position, uint64_t mask, bool by_row, const RowMask& row_mask) {
    if (mask == 0) return;
    SelectedPage page{entry, position, mask, -1};
    if (by_row || begin > 0 || end < block.rows) {
      page.row_masks = static_cast<int64_t>(selection.row_masks.size());
      for (int r = 0; r < block.rows; ++r)
        selection.row_masks.push_back(r < begin || r >= end ? 0 : row_mask(block.first + r));
    }
    selection.pages.push_back(page);
  }
};

}  // namespace

std::vector<Parameter> block_parameters(const BlockOptions& defaults) {
  using Type = Parameter::Type;
  const auto text = [](int64_t n) { return std::to_string(n); };
  return {sink_parameter({.value = text(defaults.sink)}),
          window_parameter({.value = text(defaults.window), .min = 64}),
          chunk_parameter({.value = text(defaults.chunk), .min = 64}),
          {"representatives",
           Type::kInt,
           text(defaults.representatives),
           "keys whose mean represents a block for each query head; more smooths out single strong keys",
           1,
           1e6,
           {}},
          positions_parameter(
              defaults.clamp_positions ? "clamped" : "original", {"clamped", "original"},
              "clamped: older tokens appear at most window - 1 positions away; original: at their own positions")};
}

BlockOptions read_block_options(const Values& values) {
  return {values.integer("sink"), values.integer("window"), values.integer("chunk"),
          values.integer("representatives"), values.string("positions") == "clamped"};
}

void BlockState::rewind(int64_t tokens) {
  for (LayerBlocks& layer : layers) {
    layer.attended.clear();
    while (!layer.blocks.empty() && layer.blocks.back().end + window > tokens) layer.blocks.pop_back();
    const auto pages = static_cast<size_t>(tokens / kPageTokens);
    if (layer.query_sums.size() > pages) layer.query_sums.resize(pages);
  }
}

void LayerBlocks::save(ByteWriter& out) const {
  out.add(uint64_t{blocks.size()});
  for (const MemoryBlock& block : blocks) {
    out.add(block.end);
    out.add(block.norm);
    out.add_bytes(std::as_bytes(std::span(*block.vector)));
  }
  out.add(uint64_t{query_sums.size()});
  for (const auto& sum : query_sums) {
    out.add_flag(sum != nullptr);
    if (sum) out.add_bytes(std::as_bytes(std::span(*sum)));
  }
}

void LayerBlocks::load(ByteReader& in, const SequenceLayer& layer, int64_t sink, int64_t window) {
  const auto take_vector = [&] {
    auto vector = std::make_shared<std::vector<float>>(layer.query_width());
    const std::span<const std::byte> bytes = in.take_bytes(vector->size() * sizeof(float));
    std::ranges::copy(bytes, std::as_writable_bytes(std::span(*vector)).begin());
    return vector;
  };
  int64_t begin = sink;
  for (auto left = in.take<uint64_t>(); left > 0; --left) {
    MemoryBlock block;
    block.begin = begin;
    begin = block.end = in.take_int("end of a block", begin + 1, layer.tokens() - window);
    block.norm = in.take<float>();
    block.vector = take_vector();
    blocks.push_back(std::move(block));
  }
  const auto pages = in.take<uint64_t>();
  const auto most = static_cast<uint64_t>((layer.tokens() + kPageTokens - 1) / kPageTokens);
  in.check(pages <= most, "expected sums of queries for at most ", most, " pages, found ", pages);
  query_sums.resize(pages);
  for (auto& sum : query_sums)
    if (in.take_flag()) sum = take_vector();
}

size_t BlockState::bytes() const {
  size_t bytes = 0;
  const auto add = [&](const std::shared_ptr<std::vector<float>>& floats) {
    if (floats) bytes += fair_share(floats, bytes_of(*floats));
  };
  for (const LayerBlocks& layer : layers) {
    bytes += bytes_of(layer.blocks) + bytes_of(layer.query_sums);
    for (const MemoryBlock& block : layer.blocks) add(block.vector);
    for (const auto& sum : layer.query_sums) add(sum);
  }
  return bytes;
}

void BlockState::save(ByteWriter& out, const Sequence& /*sequence*/) const {
  for (const LayerBlocks& layer : layers) layer.save(out);
}

void BlockState::load(ByteReader& in, const Sequence& sequence) {
  for (size_t i = 0; i < layers.size(); ++i) layers[i].load(in, layer_of(sequence, i), sink, window);
}

void BlockSelector::plan(const LayerQueries& queries, BlockState& state, ThreadPool& pool) const {
  LayerBlocks& layer = state.layers[queries.layer];
  layer.attended.clear();
  for (int64_t row = 0; row < queries.rows; row += options_.chunk) {
    const QueryChunk chunk{queries, row, std::min(options_.chunk, queries.rows - row)};
    add_blocks(queries, chunk.first() - options_.window, state, pool);
    layer.attended.push_back(select_ranges(chunk, state, pool));
    add_queries(chunk, layer, pool);
    after_selection(chunk, state);
  }
  release_queries(queries.first + queries.rows, layer);
}

/// Adds all blocks that end at or before `limit`.
void BlockSelector::add_blocks(const LayerQueries& queries, int64_t limit, BlockState& state,
                               ThreadPool& pool) const {
  LayerBlocks& layer = state.layers[queries.layer];
  const size_t before = layer.blocks.size();
  for (;;) {
    const int64_t begin = layer.blocks.empty() ? options_.sink : layer.blocks.back().end;
    const int64_t end = block_end(begin, limit, queries, state, pool);
    if (end <= begin || end > limit) break;
    MemoryBlock block;
    block.begin = begin;
    block.end = end;
    layer.blocks.push_back(std::move(block));
  }
  if (layer.blocks.size() > before) make_vectors(queries, before, layer, pool);
}

void BlockSelector::make_vectors(const LayerQueries& queries, size_t first, LayerBlocks& layer,
                                 ThreadPool& pool) const {
  const std::span blocks = std::span(layer.blocks).subspan(first);
  const size_t width = static_cast<size_t>(queries.heads) * queries.kv->shape().key_dim;
  const int kv_heads = queries.kv->heads();
  for (MemoryBlock& block : blocks) block.vector = std::make_shared<std::vector<float>>(width);
  pool.parallel_for(blocks.size() * kv_heads, [&](size_t i, int) {
    fill_vector(queries, layer, blocks[i / kv_heads], static_cast<int>(i % kv_heads));
  });
  for (MemoryBlock& block : blocks) {
    const std::vector<float>& vector = *block.vector;
    block.norm = std::sqrt(dot(vector.data(), vector.data(), static_cast<int>(width)));
  }
}

/// Computes the part of a block's vector that belongs to the query heads of one key/value head.
void BlockSelector::fill_vector(const LayerQueries& queries, const LayerBlocks& layer, const MemoryBlock& block,
                                int kv_head) const {
  const int dim = queries.kv->shape().key_dim, group = queries.group();
  const int64_t head_floats = static_cast<int64_t>(group) * dim;
  float* out = block.vector->data() + kv_head * head_floats;
  UnrotatedKeys raw;
  read_unrotated_keys(*queries.kv, kv_head, block, raw);
  std::vector<int> all;
  for (int t = 0; t < std::ssize(raw.positions); ++t) {
    if (raw.positions[t] >= 0) all.push_back(t);
  }
  const auto mean = [&](const std::vector<int>& tokens, float* to) {
    for (const int t : tokens) add_to(to, raw.keys.data() + static_cast<int64_t>(t) * dim, dim);
    for (int d = 0; d < dim && !tokens.empty(); ++d) to[d] /= static_cast<float>(tokens.size());
  };
  std::vector<float> query_sum(head_floats);
  if (!sum_queries(layer, block, kv_head * head_floats, query_sum)) {
    mean(all, out);
    for (int h = 1; h < group; ++h) std::copy_n(out, dim, out + static_cast<int64_t>(h) * dim);
    return;
  }
  const std::vector<float> keys = rotated_keys(queries, raw);
  for (int h = 0; h < group; ++h) {
    const int64_t at = static_cast<int64_t>(h) * dim;
    mean(best_tokens(keys.data(), dim, all, query_sum.data() + at, options_.representatives), out + at);
  }
}

/// Adds the recorded queries of the window after a block to `sum`, for the heads from float `offset` on. Returns
/// false if none was recorded.
bool BlockSelector::sum_queries(const LayerBlocks& layer, const MemoryBlock& block, int64_t offset,
                                std::vector<float>& sum) const {
  const auto& sums = layer.query_sums;
  const auto last = std::min((block.end + options_.window) / kPageTokens, std::ssize(sums));
  bool any = false;
  for (int64_t p = (block.end + kPageTokens - 1) / kPageTokens; p < last; ++p) {
    if (!sums[p]) continue;
    any = true;
    add_to(sum.data(), sums[p]->data() + offset, std::ssize(sum));
  }
  return any;
}

AttendedRanges BlockSelector::select_ranges(const QueryChunk& chunk, BlockState& state, ThreadPool& pool) const {
  AttendedRanges attended{chunk.first(), chunk.first() + chunk.rows, {}};
  const std::vector<MemoryBlock>& blocks = state.layers[chunk.layer.layer].blocks;
  const int64_t rest = blocks.empty() ? options_.sink : blocks.back().end;
  std::vector<uint32_t> selected;
  if (!blocks.empty())
    selected = select_blocks(chunk, std::max<int64_t>(0, chunk.first() - options_.window + 1 - rest), state, pool);
  std::ranges::sort(selected);
  std::vector<TokenRange> all{{0, options_.sink}};
  for (const uint32_t b : selected) all.push_back(blocks[b]);
  all.push_back({rest, std::numeric_limits<int64_t>::max()});
  for (const TokenRange& range : all) {
    if (!attended.ranges.empty() && attended.ranges.back().end == range.begin) {
      attended.ranges.back().end = range.end;
    } else {
      attended.ranges.push_back(range);
    }
  }
  return attended;
}

void BlockSelector::add_queries(const QueryChunk& chunk, LayerBlocks& layer, ThreadPool& pool) {
  const LayerQueries& queries = chunk.layer;
  const int dim = queries.kv->shape().key_dim, pairs = queries.kv->rotations().pairs();
  const int64_t begin = chunk.first(), end = begin + chunk.rows;
  const int64_t first_page = begin / kPageTokens, pages = (end - 1) / kPageTokens + 1 - first_page;
  if (std::ssize(layer.query_sums) < first_page + pages) layer.query_sums.resize(first_page + pages);
  for (int64_t p = first_page; p < first_page + pages; ++p) {
    auto& sum = layer.query_sums[p];
    if (!sum) {
      sum = std::make_shared<std::vector<float>>(static_cast<size_t>(chunk.width()));
    } else if (sum.use_count() > 1) {  // shared with a fork
      sum = std::make_shared<std::vector<float>>(*sum);
    }
  }
  for_each(pages, pages > 1, pool, [&](size_t i) {
    const int64_t page = first_page + static_cast<int64_t>(i);
    std::vector<float> spare(2 * static_cast<size_t>(pairs));
    const int64_t last = std::min(end, (page + 1) * kPageTokens);
    for (int64_t t = std::max(begin, page * kPageTokens); t < last; ++t) {
      const int64_t row = t - queries.first;
      const PositionRotations::View rotation = queries.kv->rotations().at(queries.positions[row], spare.data());
      for (int h = 0; h < queries.heads; ++h)
        add_rotated(queries.query(row, h), dim, rotation, pairs,
                    layer.query_sums[page]->data() + static_cast<int64_t>(h) * dim);
    }
  });
}

/// Releases the query sums before the last two windows. Blocks need them again only after a rewind of more than one
/// window.
void BlockSelector::release_queries(int64_t tokens, LayerBlocks& layer) const {
  const int64_t needed = tokens - 2 * options_.window - options_.chunk;
  for (int64_t p = needed / kPageTokens - 1; p >= 0 && layer.query_sums[p]; --p) layer.query_sums[p] = nullptr;
}

void BlockSelector::rotate_far(const LayerQueries& queries, float* x) const {
  const int dim = queries.kv->shape().key_dim, pairs = queries.kv->rotations().pairs();
  if (pairs == 0) return;
  std::vector<float> spare(2 * static_cast<size_t>(pairs));
  // positions may repeat, so end_position(), up to which rotations are reserved, may be below the window
  const int64_t distance = std::min(options_.window - 1, queries.kv->end_position());
  const PositionRotations::View rotation = queries.kv->rotations().at(distance, spare.data());
  for (int h = 0; h < queries.heads; ++h)
    queries.kernels->rotate_pairs(x + static_cast<int64_t>(h) * dim, rotation.cos, rotation.sin, pairs);
}

std::vector<float> BlockSelector::mean_far_query(const QueryChunk& chunk, ThreadPool& pool) const {
  std::vector<float> mean(chunk.width());
  const int64_t dim = chunk.width() / chunk.layer.heads;
  for_each(chunk.layer.heads, chunk.rows > 1, pool, [&](size_t head) {
    float* out = mean.data() + static_cast<int64_t>(head) * dim;
    for (int64_t r = 0; r < chunk.rows; ++r) add_to(out, chunk.query(r) + static_cast<int64_t>(head) * dim, dim);
    for (int64_t d = 0; d < dim; ++d) out[d] /= static_cast<float>(chunk.rows);
  });
  rotate_far(chunk.layer, mean.data());
  return mean;
}

void BlockSelector::select(const PageTable& table, const QueryBlock& block, const BlockState* state,
                           Selection& selection) const {
  assert(state && "block methods select in plan(), which needs a state");
  for (const AttendedRanges& attended : state->layers[block.layer].attended) {
    if (attended.first < block.first + block.rows && attended.end > block.first)
      select_rows(table, block, attended, selection);
  }
}

/// Tokens before `far_end` are far for all rows; tokens from `near_begin` on are near for all rows. Tokens between
/// are near for some of the rows.
void BlockSelector::select_rows(const PageTable& table, const QueryBlock& block, const AttendedRanges& attended,
                                Selection& selection) const {
  const int begin = static_cast<int>(std::max<int64_t>(attended.first - block.first, 0));
  const int end = static_cast<int>(std::min<int64_t>(attended.end - block.first, block.rows));
  const int64_t window = options_.window;
  const int64_t far_end = block.first + begin + 1 - window, near_begin = block.first + end - window;
  const int64_t far_position =
      std::min(block.positions[end - 1] - (window - 1), block.positions[begin] - kPageTokens + 1);
  RowPages rows{block, begin, end, selection};
  for_entries(table, attended.ranges, block.first + end, [&](uint32_t entry_index, uint64_t visible) {
    const PageEntry& entry = table[entry_index];
    const uint64_t mask = entry.mask & visible;
    if (!options_.clamp_positions || entry.position >= far_position || entry.first >= near_begin) {
      rows.add(entry_index, entry.position, mask, false, [](int64_t) { return ~uint64_t{0}; });
      return;
    }
    const auto far_bits = [&](int64_t row) { return page_bits(0, row + 1 - window - entry.first); };
    const bool by_row = (mask & page_bits(far_end - entry.first, near_begin - entry.first)) != 0;
    rows.add(entry_index, far_position, mask & far_bits(block.first + end - 1), by_row, far_bits);
    rows.add(entry_index, entry.position, mask & ~far_bits(block.first + begin), by_row,
             [&](int64_t row) { return ~far_bits(row); });
  });
}

std::vector<float> block_scores(const LayerBlocks& layer, const std::vector<float>& query, ThreadPool& pool) {
  const auto count = static_cast<int64_t>(layer.blocks.size());
  std::vector<float> scores(count);
  const int64_t parts = (count + kScoredTogether - 1) / kScoredTogether;
  for_each(parts, parts > 1, pool, [&](size_t part) {
    const int64_t begin = static_cast<int64_t>(part) * kScoredTogether;
    for (int64_t b = begin; b < std::min(begin + kScoredTogether, count); ++b)
      scores[b] = dot(layer.blocks[b].vector->data(), query.data(), static_cast<int>(query.size()));
  });
  return scores;
}

std::vector<uint32_t> best_blocks(const std::vector<float>& scores, int64_t count) {
  std::vector<uint32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0u);
  const auto kept = std::min<int64_t>(count, std::ssize(order));
  const auto value = [&](uint32_t b) {
    return std::isnan(scores[b]) ? -std::numeric_limits<float>::infinity() : scores[b];
  };
  std::ranges::partial_sort(order, order.begin() + kept, [&](uint32_t a, uint32_t b) {
    return value(a) != value(b) ? value(a) > value(b) : a > b;
  });
  order.resize(kept);
  return order;
}

void read_unrotated_keys(const PagedKv& kv, int head, TokenRange tokens, UnrotatedKeys& raw) {
  const PageStore& store = kv.store();
  const int dim = store.shape().key_dim, pairs = kv.rotations().pairs();
  const PageTable& table = kv.table(head);
  const int64_t count = tokens.end - tokens.begin;
  raw.keys.assign(static_cast<size_t>(count) * dim, 0.0f);
  raw.positions.assign(count, -1);
  std::vector<float> page(static_cast<size_t>(kPageTokens) * dim);
  for_entries(table, {tokens}, tokens.end, [&](uint32_t entry_index, uint64_t mask) {
    const PageEntry& entry = table[entry_index];
    mask &= entry.mask;
    if (mask == 0) return;
    read_keys(store.shape().format, dim, store.keys(entry.page), entry.filled, page.data());
    for (int o = 0; o < entry.filled; ++o) {
      if (!(mask >> o & 1)) continue;
      const int64_t t = entry.first + o - tokens.begin;
      float* key = raw.keys.data() + t * dim;
      std::copy_n(page.data() + static_cast<int64_t>(o) * dim, dim, key);
      if (pairs > 0) inverse_rotate(key, kv.rotations().offset(o), pairs);
      raw.positions[t] = entry.position + o;
    }
  });
}

std::vector<float> rotated_keys(const LayerQueries& queries, const UnrotatedKeys& raw) {
  const int dim = queries.kv->shape().key_dim, pairs = queries.kv->rotations().pairs();
  std::vector<float> keys = raw.keys, spare(2 * static_cast<size_t>(pairs));
  for (int64_t t = 0; t < std::ssize(raw.positions) && pairs > 0; ++t) {
    if (raw.positions[t] < 0) continue;
    const PositionRotations::View rotation = queries.kv->rotations().at(raw.positions[t], spare.data());
    queries.kernels->rotate_pairs(keys.data() + t * dim, rotation.cos, rotation.sin, pairs);
  }
  return keys;
}

std::vector<int> best_tokens(const float* keys, int dim, const std::vector<int>& tokens, const float* query,
                             int64_t count) {
  std::vector<std::pair<float, int>> scored;
  for (const int t : tokens) scored.emplace_back(-dot(query, keys + static_cast<int64_t>(t) * dim, dim), t);
  const auto kept = std::min<int64_t>(count, std::ssize(scored));
  std::ranges::partial_sort(scored, scored.begin() + kept);
  std::vector<int> best;
  for (int64_t i = 0; i < kept; ++i) best.push_back(scored[i].second);
  return best;
}

}  // namespace fathom
