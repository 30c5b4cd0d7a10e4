#include "attend/attention.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <chrono>
#include <cmath>

namespace fathom {
namespace {

/// Queries (rows × group) of one task: with them, one bringing-in of a page serves many, and their sums stay in the
/// L2 cache.
constexpr int kBlockQueries = 256;
/// With few queries the pages of a head are shared out among tasks of this many (2,048 tokens), so that all threads
/// have work and each streams for long; the number does not depend on the threads, so that results do not either.
constexpr int64_t kPartPages = 32;
constexpr int kPartQueries = 16;

/// The first token of the sequence that token `index` may attend to.
int64_t window_begin(int64_t window, int64_t index) {
  return window > 0 ? std::max<int64_t>(0, index + 1 - window) : 0;
}

/// The tokens of a page that lie in the window of token `first` or of a later one, and not after token `last`.
uint64_t visible_mask(const PageSlot& slot, int64_t window, int64_t first, int64_t last) {
  return page_bits(window_begin(window, first) - slot.first, last + 1 - slot.first);
}
uint64_t visible_mask(const PageSlot& slot, int64_t window, int64_t index) {
  return visible_mask(slot, window, index, index);
}

int64_t nanoseconds() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

/// Tokens of the sequence up to a row of its newest ones, the row included.
int64_t tokens_to(const AttentionInput& input, int64_t row) {
  return input.memory->tokens() - input.rows + row + 1;
}

/// The first row of the task that ends before row `end`: tasks begin every `most` rows, and where a landmark's
/// block begins, so that for all rows of a task the same blocks are past.
int64_t task_begin(const AttentionInput& input, int64_t end, int64_t most) {
  int64_t from = 0;
  if (input.landmarks) {
    const int64_t last = tokens_to(input, end - 1) - 1;
    from = end - 1 - last % input.landmarks.block();
  }
  return std::max<int64_t>(0, from + (end - 1 - from) / most * most);
}

/// What the scores of a row are multiplied with.
float row_scale(const AttentionInput& input, int64_t row) {
  const float scale = input.scale * input.selector->score_factor(input.layer);
  return input.form.softplus ? scale * std::log(static_cast<float>(tokens_to(input, row))) : scale;
}

}  // namespace

uint64_t AttendedBlock::mask(const SelectedPage& page, int row) const {
  const PageSlot& slot = memory.lane(block.layer, block.head)[page.slot];
  const uint64_t seen = page.mask & visible_mask(slot, window, block.first + row);
  return page.row_masks < 0 ? seen : seen & selection.row_masks[page.row_masks + row];
}

double AttendedBlock::share(int64_t query, double score) const {
  if (!std::isfinite(lse[query])) return 0;  // nothing had weight, or the query was not finite
  return std::exp(log_weight(form, query, score) - lse[query]);
}

void Attention::rotate_queries(const AttentionInput& input, Prepared& prepared) const {
  const Block& block = prepared.block;
  const int key_dim = input.memory->store().shape().key_dim;
  const int64_t head_floats = static_cast<int64_t>(input.group()) * key_dim;
  const int pairs = input.rotations->pairs();
  prepared.queries.resize(block.rows * head_floats);
  prepared.places.resize(2 * static_cast<size_t>(pairs));
  for (int r = 0; r < block.rows; ++r) {
    const int64_t row = block.first_row + r;
    const float* from = input.queries + row * input.query_stride + block.head * head_floats;
    float* to = prepared.queries.data() + r * head_floats;
    const float scale = row_scale(input, row);
    for (int64_t i = 0; i < head_floats; ++i) to[i] = from[i] * scale;
    if (pairs == 0) continue;
    const PlaceRotations::View turn = input.rotations->at(input.positions[row], prepared.places.data());
    for (int64_t i = 0; i < head_floats; i += key_dim) kernels_.rotate_pairs(to + i, turn.cos, turn.sin, pairs);
  }
}

/// Makes of a selection what the kernel reads: pointers, rotations, and masks without what lies after a row or
/// before its window.
void Attention::read_pages(const AttentionInput& input, const QueryBlock& query, Prepared& prepared) const {
  const Lane& lane = input.memory->lane(input.layer, query.head);
  const PageStore& store = input.memory->store();
  const Selection& selection = prepared.selection;
  const size_t pairs = input.rotations->pairs();
  prepared.reads.clear();
  prepared.own_block = false;
  prepared.places.resize(selection.pages.size() * 2 * pairs);
  prepared.row_masks.resize(selection.pages.size() * query.rows);
  const int64_t last = query.first + query.rows - 1;
  for (size_t i = 0; i < selection.pages.size(); ++i) {
    const SelectedPage& page = selection.pages[i];
    const PageSlot& slot = lane[page.slot];
    PageRead read;
    read.mask = page.mask & visible_mask(slot, input.window, query.first, last) & ~input.landmarks.bit();
    if (read.mask == 0) continue;
    read.keys = page.keys ? page.keys : store.keys(slot.page);
    read.values = store.values(slot.page);
    if (pairs > 0) {
      const PlaceRotations::View turn = input.rotations->at(page.place, prepared.places.data() + i * 2 * pairs);
      read.cos = turn.cos;
      read.sin = turn.sin;
    }
    const bool rows_differ = (read.mask & ~visible_mask(slot, input.window, last, query.first)) != 0;
    if (rows_differ || page.row_masks >= 0) {
      uint64_t* masks = prepared.row_masks.data() + i * query.rows;
      for (int r = 0; r < query.rows; ++r) {
        masks[r] = visible_mask(slot, input.window, query.first + r);
        if (page.row_masks >= 0) masks[r] &= selection.row_masks[page.row_masks + r];
        prepared.count.attended += static_cast<int64_t>(query.group) * std::popcount(read.mask & masks[r]);
      }
      read.row_masks = masks;
    } else {
      prepared.count.attended += static_cast<int64_t>(query.group) * query.rows * std::popcount(read.mask);
    }
    prepared.reads.push_back(read);
    if (!input.landmarks) continue;
    prepared.own_block = slot.first + slot.filled > query.first;
    if (!prepared.own_block) prepared.count.attended += static_cast<int64_t>(query.group) * query.rows;
  }
}

QueryBlock Attention::query_block(const AttentionInput& input, const Prepared& prepared) const {
  const Block& block = prepared.block;
  QueryBlock query;
  query.layer = input.layer;
  query.head = block.head;
  query.group = input.group();
  query.first = tokens_to(input, block.first_row) - 1;
  query.rows = block.rows;
  query.visible_from = window_begin(input.window, query.first);
  query.positions = input.positions + block.first_row;
  query.queries = prepared.queries.data();
  query.rotations = input.rotations;
  query.kernels = &kernels_;
  query.state = input.memory->state(Memory::StateOf::kSelector);
  return query;
}

void Attention::show(const AttentionInput& input, const Prepared& prepared, const float* lse) const {
  if (!input.watcher || !input.watcher->wants(input.layer)) return;
  const QueryBlock query = query_block(input, prepared);
  input.watcher->saw({*input.memory, query, prepared.selection, input.window, lse, prepared.form});
}

void Attention::prepare(const AttentionInput& input, const Block& block, Prepared& prepared) const {
  prepared.block = block;
  prepared.form = {.softplus = input.form.softplus};
  rotate_queries(input, prepared);
  const QueryBlock query = query_block(input, prepared);
  prepared.selection.clear();
  const int64_t before = nanoseconds();
  input.selector->select(input.memory->lane(input.layer, block.head), query, prepared.selection);
  prepared.count.selecting += nanoseconds() - before;
  read_pages(input, query, prepared);
  for (int64_t token = query.first; token < query.first + block.rows; ++token)
    prepared.count.visible += query.group * (token + 1 - window_begin(input.window, token));
}

/// Makes the form of the last pass. lse: [rows, group] of the first, over all pages that the block sees.
void Attention::reweigh(const AttentionInput& input, Prepared& prepared, const float* lse) const {
  const Block& block = prepared.block;
  const int group = input.group();
  prepared.reweighting.resize(static_cast<size_t>(block.rows) * group);
  for (int q = 0; q < block.rows * group; ++q) {
    const int64_t tokens = tokens_to(input, block.first_row + q / group);
    prepared.reweighting[q] = {lse[q], static_cast<float>(tokens),
                               tokens > kRowsWithoutOffset ? input.form.offset : 0.0f};
  }
  prepared.form = {true, prepared.reweighting.data(), input.form.power};
}

/// out null: only lse.
void Attention::attend_pages(const AttentionInput& input, const Prepared& prepared, int64_t begin, int64_t end,
                             float* out, float* lse, Scratch& scratch) const {
  if (input.landmarks) return attend_blocks(input, prepared, begin, end, out, lse, scratch);
  attend_plainly(input, prepared, begin, end, out, lse, scratch);
}

void Attention::attend_plainly(const AttentionInput& input, const Prepared& prepared, int64_t begin, int64_t end,
                               float* out, float* lse, Scratch& scratch) const {
  const PageShape& shape = input.memory->store().shape();
  AttendTask task;
  task.format = shape.format;
  task.key_dim = shape.key_dim;
  task.value_dim = shape.value_dim;
  task.rotary_dim = 2 * input.rotations->pairs();
  task.rows = prepared.block.rows;
  task.group = input.group();
  task.queries = prepared.queries.data();
  task.pages = prepared.reads.data() + begin;
  task.page_count = end - begin;
  task.form = prepared.form;
  task.out = out;
  task.lse = lse;
  scratch.floats.reserve(attend_scratch(shape.key_dim, shape.value_dim, task.rows * task.group));
  kernels_.attend(task, scratch.floats.data());
}

void Attention::store(const AttentionInput& input, const Block& block, const float* out, const float* lse) const {
  const int value_dim = input.memory->store().shape().value_dim;
  const int group = input.group();
  for (int r = 0; r < block.rows; ++r) {
    const int64_t at = (block.first_row + r) * input.heads + static_cast<int64_t>(block.head) * group;
    std::copy_n(out + static_cast<int64_t>(r) * group * value_dim, static_cast<int64_t>(group) * value_dim,
                input.out + at * value_dim);
    if (input.lse) std::copy_n(lse + static_cast<int64_t>(r) * group, group, input.lse + at);
  }
}

/// A block of rows is a task with all its pages; later rows see more and go first, so that what is left at the end
/// is small. Few queries of many pages are prepared head by head, and their pages shared out afterwards.
void Attention::list_tasks(std::span<const AttentionInput> inputs) {
  tasks_.clear();
  prepared_count_ = 0;
  for (const AttentionInput& input : inputs) {
    assert(input.heads % input.memory->kv_heads() == 0);
    assert(!input.landmarks || input.window == 0);
    const int heads = input.memory->kv_heads();
    const auto pages = static_cast<int64_t>(input.memory->lane(input.layer, 0).size());
    const bool by_parts = input.rows * input.group() <= kPartQueries && pages > kPartPages;
    const int64_t block_rows = std::max(1, kBlockQueries / input.group());
    for (int64_t end = input.rows, first = 0; end > 0; end = first) {
      first = task_begin(input, end, block_rows);
      const int rows = static_cast<int>(end - first);
      for (int head = 0; head < heads; ++head) {
        const int64_t prepared = by_parts ? static_cast<int64_t>(prepared_count_++) : -1;
        tasks_.push_back({&input, {head, first, rows}, prepared});
      }
    }
  }
  if (prepared_.size() < prepared_count_) prepared_.resize(prepared_count_);
}

void Attention::attend_block(const Task& task, int thread) {
  const AttentionInput& input = *task.input;
  Scratch& scratch = scratch_[thread];
  prepare(input, task.block, scratch.prepared);
  const int64_t queries = static_cast<int64_t>(task.block.rows) * input.group();
  scratch.out.resize(queries * input.memory->store().shape().value_dim);
  scratch.lse.resize(queries);
  const auto pages = static_cast<int64_t>(scratch.prepared.reads.size());
  if (input.form.reweights()) {
    attend_pages(input, scratch.prepared, 0, pages, nullptr, scratch.lse.data(), scratch);
    reweigh(input, scratch.prepared, scratch.lse.data());
  }
  attend_pages(input, scratch.prepared, 0, pages, scratch.out.data(), scratch.lse.data(), scratch);
  store(input, task.block, scratch.out.data(), scratch.lse.data());
  show(input, scratch.prepared, scratch.lse.data());
}

void Attention::list_parts() {
  parts_.clear();
  size_t out = 0, lse = 0;
  for (const Task& task : tasks_) {
    if (task.prepared < 0) continue;
    Prepared& prepared = prepared_[task.prepared];
    const size_t queries = static_cast<size_t>(task.block.rows) * task.input->group();
    const auto pages = static_cast<int64_t>(prepared.reads.size());
    int64_t begin = 0;
    do {
      parts_.push_back({task.input, &prepared, begin, std::min(begin + kPartPages, pages), out, lse});
      out += queries * task.input->memory->store().shape().value_dim;
      lse += queries;
      begin += kPartPages;
    } while (begin < pages);
  }
  partial_out_.resize(out);
  partial_lse_.resize(lse);
}

void Attention::attend_parts(Pass pass) {
  pool_.parallel_for(parts_.size(), [&](size_t i, int thread) {
    const Part& part = parts_[i];
    if (pass == Pass::kFirst && !part.input->form.reweights()) return;
    attend_pages(*part.input, *part.prepared, part.begin, part.end,
                 pass == Pass::kFirst ? nullptr : partial_out_.data() + part.out, partial_lse_.data() + part.lse,
                 scratch_[thread]);
  });
}

/// Joins the parts of each head in their order: of the first pass only their log-sums.
void Attention::join_parts(Pass pass) {
  for (size_t p = 0; p < parts_.size();) {
    const Part& first = parts_[p];
    const int value_dim = pass == Pass::kFirst ? 0 : first.input->memory->store().shape().value_dim;
    const int queries = first.prepared->block.rows * first.input->group();
    float* out = partial_out_.data() + first.out;
    float* lse = partial_lse_.data() + first.lse;
    for (++p; p < parts_.size() && parts_[p].begin > 0; ++p) {
      for (int q = 0; q < queries; ++q) {
        merge_attention(out + static_cast<int64_t>(q) * value_dim, lse[q],
                        partial_out_.data() + parts_[p].out + static_cast<int64_t>(q) * value_dim,
                        partial_lse_[parts_[p].lse + q], value_dim);
      }
    }
    if (pass == Pass::kFirst) {
      if (first.input->form.reweights()) reweigh(*first.input, *first.prepared, lse);
      continue;
    }
    store(*first.input, first.prepared->block, out, lse);
    show(*first.input, *first.prepared, lse);
  }
}

void Attention::add(AttentionCount& count) {
  count_ += count;
  count = {};
}

/// What selectors and listeners do for a layer as a whole. All threads are theirs.
void Attention::plan(std::span<const AttentionInput> inputs) {
  for (const AttentionInput& input : inputs) {
    LayerQueries queries;
    queries.memory = input.memory;
    queries.layer = input.layer;
    queries.heads = input.heads;
    queries.first = input.memory->tokens() - input.rows;
    queries.rows = input.rows;
    queries.positions = input.positions;
    queries.queries = input.queries;
    queries.stride = input.query_stride;
    queries.scale = row_scale(input, input.rows - 1);
    queries.rotations = input.rotations;
    queries.kernels = &kernels_;
    queries.state = input.memory->state(Memory::StateOf::kSelector);
    input.selector->plan(queries, pool_);
    if (!input.listener) continue;
    queries.state = input.memory->state(Memory::StateOf::kEvictor);
    input.listener->listen(queries, pool_);
  }
}

void Attention::run(std::span<const AttentionInput> inputs) {
  const int64_t begin = nanoseconds();
  plan(inputs);
  count_.selecting += (nanoseconds() - begin) * pool_.threads();
  attend(inputs);
  count_.running += (nanoseconds() - begin) * pool_.threads();
}

void Attention::attend(std::span<const AttentionInput> inputs) {
  list_tasks(inputs);
  pool_.parallel_for(tasks_.size(), [&](size_t i, int thread) {
    const Task& task = tasks_[i];
    if (task.prepared < 0) {
      attend_block(task, thread);
    } else {
      prepare(*task.input, task.block, prepared_[task.prepared]);
    }
  });
  for (Scratch& scratch : scratch_) add(scratch.prepared.count);
  for (size_t i = 0; i < prepared_count_; ++i) add(prepared_[i].count);
  if (prepared_count_ == 0) return;
  list_parts();
  const bool twice =
      std::any_of(parts_.begin(), parts_.end(), [](const Part& p) { return p.input->form.reweights(); });
  if (twice) {
    attend_parts(Pass::kFirst);
    join_parts(Pass::kFirst);
  }
  attend_parts(Pass::kLast);
  join_parts(Pass::kLast);
}

}  // namespace fathom
