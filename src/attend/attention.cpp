#include "attend/attention.h"

#include <algorithm>
#include <bit>
#include <cassert>

namespace fathom {
namespace {

/// Queries (rows × group) of one task: with them, one bringing-in of a page serves many, and their sums stay in the
/// L2 cache.
constexpr int kBlockQueries = 256;
/// With few queries the pages of a head are shared out among tasks of this many (2,048 tokens), so that all threads
/// have work and each streams for long; the number does not depend on the threads, so that results do not either.
constexpr int64_t kPartPages = 32;
constexpr int kPartQueries = 16;

/// The tokens of a page that come no later than token `last` of the sequence.
uint64_t causal_mask(const PageSlot& slot, int64_t last) { return page_bits(0, last + 1 - slot.first); }

int group_of(const AttentionInput& input) { return input.heads / input.memory->kv_heads(); }

}  // namespace

void Attention::rotate_queries(const AttentionInput& input, Prepared& prepared) const {
  const Block& block = prepared.block;
  const int key_dim = input.memory->store().shape().key_dim;
  const int64_t head_floats = static_cast<int64_t>(group_of(input)) * key_dim;
  const int pairs = input.rotations->pairs();
  prepared.queries.resize(block.rows * head_floats);
  prepared.places.resize(2 * static_cast<size_t>(pairs));
  for (int r = 0; r < block.rows; ++r) {
    const int64_t row = block.first_row + r;
    const float* from = input.queries + row * input.query_stride + block.head * head_floats;
    float* to = prepared.queries.data() + r * head_floats;
    for (int64_t i = 0; i < head_floats; ++i) to[i] = from[i] * input.scale;
    if (pairs == 0) continue;
    const PlaceRotations::View turn = input.rotations->at(input.positions[row], prepared.places.data());
    for (int64_t i = 0; i < head_floats; i += key_dim) kernels_.rotate_pairs(to + i, turn.cos, turn.sin, pairs);
  }
}

/// Turns a selection into what the kernel reads: pointers, rotations, and masks from which the future is taken
/// away.
void Attention::read_pages(const AttentionInput& input, const QueryBlock& query, Prepared& prepared) const {
  const Lane& lane = input.memory->lane(input.layer, query.head);
  const PageStore& store = input.memory->store();
  const Selection& selection = prepared.selection;
  const size_t pairs = input.rotations->pairs();
  prepared.reads.clear();
  prepared.places.resize(selection.pages.size() * 2 * pairs);
  prepared.row_masks.resize(selection.pages.size() * query.rows);
  for (size_t i = 0; i < selection.pages.size(); ++i) {
    const SelectedPage& page = selection.pages[i];
    const PageSlot& slot = lane[page.slot];
    PageRead read;
    read.mask = page.mask & causal_mask(slot, query.first + query.rows - 1);
    if (read.mask == 0) continue;
    read.keys = store.keys(slot.page);
    read.values = store.values(slot.page);
    if (pairs > 0) {
      const PlaceRotations::View turn = input.rotations->at(page.place, prepared.places.data() + i * 2 * pairs);
      read.cos = turn.cos;
      read.sin = turn.sin;
    }
    const bool causal_edge = (read.mask & ~causal_mask(slot, query.first)) != 0;
    if (causal_edge || page.row_masks >= 0) {
      uint64_t* masks = prepared.row_masks.data() + i * query.rows;
      for (int r = 0; r < query.rows; ++r) {
        masks[r] = causal_mask(slot, query.first + r);
        if (page.row_masks >= 0) masks[r] &= selection.row_masks[page.row_masks + r];
        prepared.count.attended += static_cast<int64_t>(query.group) * std::popcount(read.mask & masks[r]);
      }
      read.row_masks = masks;
    } else {
      prepared.count.attended += static_cast<int64_t>(query.group) * query.rows * std::popcount(read.mask);
    }
    prepared.reads.push_back(read);
  }
}

void Attention::prepare(const AttentionInput& input, const Block& block, Prepared& prepared) const {
  prepared.block = block;
  rotate_queries(input, prepared);
  QueryBlock query;
  query.layer = input.layer;
  query.head = block.head;
  query.group = group_of(input);
  query.first = input.memory->tokens() - input.rows + block.first_row;
  query.rows = block.rows;
  query.positions = input.positions + block.first_row;
  query.queries = prepared.queries.data();
  prepared.selection.clear();
  input.selector->select(input.memory->lane(input.layer, block.head), query, prepared.selection);
  read_pages(input, query, prepared);
  for (int r = 0; r < block.rows; ++r) prepared.count.visible += query.group * (query.first + r + 1);
}

void Attention::attend_pages(const AttentionInput& input, const Prepared& prepared, int64_t begin, int64_t end,
                             float* out, float* lse, Scratch& scratch) const {
  const PageShape& shape = input.memory->store().shape();
  AttendTask task;
  task.format = shape.format;
  task.key_dim = shape.key_dim;
  task.value_dim = shape.value_dim;
  task.rotary_dim = 2 * input.rotations->pairs();
  task.rows = prepared.block.rows;
  task.group = group_of(input);
  task.queries = prepared.queries.data();
  task.pages = prepared.reads.data() + begin;
  task.page_count = end - begin;
  task.out = out;
  task.lse = lse;
  scratch.floats.reserve(attend_scratch(shape.key_dim, shape.value_dim, task.rows * task.group));
  kernels_.attend(task, scratch.floats.data());
}

void Attention::store(const AttentionInput& input, const Block& block, const float* out, const float* lse) const {
  const int value_dim = input.memory->store().shape().value_dim;
  const int group = group_of(input);
  for (int r = 0; r < block.rows; ++r) {
    const int64_t at = (block.first_row + r) * input.heads + static_cast<int64_t>(block.head) * group;
    std::copy_n(out + static_cast<int64_t>(r) * group * value_dim, static_cast<int64_t>(group) * value_dim,
                input.out + at * value_dim);
    if (input.lse) std::copy_n(lse + static_cast<int64_t>(r) * group, group, input.lse + at);
  }
}

/// Many queries, or few pages: a task is a block of rows with all its pages. Later rows see more: they go first, so
/// that what is left at the end is small.
void Attention::run_by_rows(const AttentionInput& input) {
  const int group = group_of(input);
  const int value_dim = input.memory->store().shape().value_dim;
  const int block_rows = std::max(1, kBlockQueries / group);
  const int64_t row_blocks = (input.rows + block_rows - 1) / block_rows;
  pool_.parallel_for(row_blocks * input.memory->kv_heads(), [&](size_t i, int thread) {
    Scratch& scratch = scratch_[thread];
    const int64_t heads = input.memory->kv_heads();
    const int64_t first = (row_blocks - 1 - static_cast<int64_t>(i) / heads) * block_rows;
    const Block block{static_cast<int>(i % heads), first,
                      static_cast<int>(std::min<int64_t>(block_rows, input.rows - first))};
    prepare(input, block, scratch.prepared);
    scratch.out.resize(static_cast<size_t>(block.rows) * group * value_dim);
    scratch.lse.resize(static_cast<size_t>(block.rows) * group);
    attend_pages(input, scratch.prepared, 0, scratch.prepared.reads.size(), scratch.out.data(), scratch.lse.data(),
                 scratch);
    store(input, block, scratch.out.data(), scratch.lse.data());
  });
  for (Scratch& scratch : scratch_) add(scratch.prepared.count);
}

/// Few queries, many pages: the pages of each head are shared out among tasks, whose results are joined in their
/// order.
void Attention::run_by_parts(const AttentionInput& input) {
  const int queries = static_cast<int>(input.rows) * group_of(input);
  const int value_dim = input.memory->store().shape().value_dim;
  prepared_.resize(input.memory->kv_heads());
  pool_.parallel_for(prepared_.size(), [&](size_t head, int) {
    prepare(input, {static_cast<int>(head), 0, static_cast<int>(input.rows)}, prepared_[head]);
  });
  parts_.clear();
  for (Prepared& prepared : prepared_) {
    const auto pages = static_cast<int64_t>(prepared.reads.size());
    int64_t begin = 0;
    do {
      parts_.push_back({&prepared, begin, std::min(begin + kPartPages, pages), parts_.size() * queries});
      begin += kPartPages;
    } while (begin < pages);
    add(prepared.count);
  }
  partial_out_.resize(parts_.size() * queries * value_dim);
  partial_lse_.resize(parts_.size() * queries);
  pool_.parallel_for(parts_.size(), [&](size_t i, int thread) {
    const Part& part = parts_[i];
    attend_pages(input, *part.prepared, part.begin, part.end, partial_out_.data() + part.partial * value_dim,
                 partial_lse_.data() + part.partial, scratch_[thread]);
  });
  for (size_t p = 0; p < parts_.size();) {
    const Part& first = parts_[p];
    float* out = partial_out_.data() + first.partial * value_dim;
    float* lse = partial_lse_.data() + first.partial;
    for (++p; p < parts_.size() && parts_[p].begin > 0; ++p) {
      for (int q = 0; q < queries; ++q) {
        const size_t other = parts_[p].partial + q;
        merge_attention(out + static_cast<int64_t>(q) * value_dim, lse[q], partial_out_.data() + other * value_dim,
                        partial_lse_[other], value_dim);
      }
    }
    store(input, first.prepared->block, out, lse);
  }
}

void Attention::add(AttentionCount& count) {
  count_.attended += count.attended;
  count_.visible += count.visible;
  count = {};
}

void Attention::run(const AttentionInput& input) {
  assert(input.heads % input.memory->kv_heads() == 0);
  const auto pages = static_cast<int64_t>(input.memory->lane(input.layer, 0).size());
  if (input.rows * group_of(input) <= kPartQueries && pages > kPartPages) {
    run_by_parts(input);
  } else {
    run_by_rows(input);
  }
}

}  // namespace fathom
