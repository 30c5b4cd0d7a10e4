#include "attend/attention.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <chrono>
#include <cmath>
#include <numeric>
#include <tuple>

#include "base/error.h"

namespace fathom {
namespace {

/// Maximum number of queries (rows × group) of one task. A page is unpacked once for all of them, and their sums
/// fit into the L2 cache.
constexpr int kBlockQueries = 256;
/// With at most kPartQueries queries, the pages of a head are split into parts of kPartPages pages (2,048 tokens).
/// All threads then have work, and each reads long contiguous ranges of memory. The parts do not depend on the
/// number of threads, so results do not either.
constexpr int64_t kPartPages = 32;
constexpr int kPartQueries = 16;
/// Maximum number of queries of a block of a draft: fewer than those for which pages are unpacked into tiles.
constexpr int kDraftQueries = kTileQueries - 1;

/// Returns the index of the first token that token `index` may attend to.
int64_t window_begin(int64_t window, int64_t index) {
  return window > 0 ? std::max<int64_t>(0, index + 1 - window) : 0;
}

/// Returns the tokens of a page that are inside the window of token `first` or a later token, up to token `last`.
uint64_t visible_mask(const PageEntry& entry, int64_t window, int64_t first, int64_t last) {
  return page_bits(window_begin(window, first) - entry.first, last + 1 - entry.first);
}
uint64_t visible_mask(const PageEntry& entry, int64_t window, int64_t index) {
  return visible_mask(entry, window, index, index);
}

int64_t nanoseconds() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

/// Returns the first row of the task that ends before row `end`. Tasks begin every `max_rows` rows, counted from
/// the first row that the attention form allows in the same block.
int64_t task_begin(const AttentionInput& input, int64_t end, int64_t max_rows) {
  const int64_t from = std::max<int64_t>(0, end - input.form->max_block_rows(input.token(end - 1)));
  return from + (end - 1 - from) / max_rows * max_rows;
}

/// Returns whether the results of a row of a block of few queries do not depend on the other rows: all rows attend
/// to the same tokens, each up to its own, and the kernel for pages of floats adds the same numbers in the same
/// order. An exception are rows that fill a page (fills_page): with whole pages only, the kernel uses another
/// order.
bool has_independent_rows(const AttentionInput& input) {
  const PageShape& shape = input.kv->shape();
  return input.selector->selects_all() && input.kv->window() == 0 && !shape.values_in_keys() &&
         (shape.format == PageFormat::kF32 || shape.format == PageFormat::kBF16) && !input.form->has_second_pass();
}

/// Returns whether the token of a row is the last one of a page in any head.
bool fills_page(const AttentionInput& input, int64_t row) {
  const int64_t token = input.token(row);
  for (int head = 0; head < input.kv->heads(); ++head) {
    const PageTable& table = input.kv->table(head);
    for (size_t e = table.size(); e-- > 0 && table[e].first + kPageTokens > token;)
      if (table[e].first + kPageTokens == token + 1) return true;
  }
  return false;
}

/// Returns the first row of the block of a draft that ends before row `end`, with at most max_rows rows.
int64_t draft_block_begin(const AttentionInput& input, int64_t end, int64_t max_rows) {
  int64_t first = end - 1;
  if (max_rows == 1 || fills_page(input, first)) return first;
  const int64_t least = task_begin(input, end, max_rows);
  while (first > least && !fills_page(input, first - 1)) --first;
  return first;
}

/// Returns the factor on the scores of a row.
float row_scale(const AttentionInput& input, int64_t row) {
  const float scale = input.scale * input.selector->score_factor(input.layer);
  return scale * input.form->row_scale(input.token(row) + 1);
}

}  // namespace

uint64_t AttendedBlock::mask(const SelectedPage& page, int row) const {
  const PageEntry& entry = kv.table(block.head)[page.entry];
  const uint64_t visible = page.mask & visible_mask(entry, kv.window(), block.first + row);
  return page.row_masks < 0 ? visible : visible & selection.row_masks[page.row_masks + row];
}

double AttendedBlock::share(int64_t query, double score) const {
  if (!std::isfinite(lse[query])) return 0;        // no token has weight, or the query is not finite
  float weight[16] = {static_cast<float>(score)};  // kernels take whole vectors
  if (weights.apply) weights(query, std::ssize(weight), weight);
  return std::exp(static_cast<double>(weight[0]) - lse[query]);
}

LayerQueries AttentionInput::layer_queries(const Kernels& kernels) const {
  LayerQueries all;
  all.sequence = sequence;
  all.kv = kv;
  all.layer = layer;
  all.heads = heads;
  all.first = token(0);
  all.rows = rows;
  all.positions = positions;
  all.queries = queries;
  all.stride = query_stride;
  all.scale = row_scale(*this, rows - 1);
  all.kernels = &kernels;
  return all;
}

void Attention::rotate_queries(const AttentionInput& input, AttentionBlock& block) const {
  const PositionRotations& rotations = block.kv->rotations();
  const int key_dim = block.kv->shape().key_dim, pairs = rotations.pairs();
  const int64_t head_floats = static_cast<int64_t>(block.group) * key_dim;
  block.queries.resize(block.rows * head_floats);
  block.rotations.resize(2 * static_cast<size_t>(pairs));
  for (int r = 0; r < block.rows; ++r) {
    const int64_t row = block.first_row + r;
    const float* from = input.queries + row * input.query_stride + block.head * head_floats;
    float* to = block.queries.data() + r * head_floats;
    const float scale = row_scale(input, row);
    for (int64_t i = 0; i < head_floats; ++i) to[i] = from[i] * scale;
    if (pairs == 0) continue;
    const PositionRotations::View rotation = rotations.at(input.positions[row], block.rotations.data());
    for (int64_t i = 0; i < head_floats; i += key_dim)
      kernels_.rotate_pairs(to + i, rotation.cos, rotation.sin, pairs);
  }
}

/// Converts the selection to the kernel's input: pointers, rotations and masks. Masks exclude tokens after a row
/// and tokens before its window.
void Attention::read_pages(AttentionBlock& block) const {
  const PageTable& table = block.kv->table(block.head);
  const PageStore& store = block.kv->store();
  const PositionRotations& rotations = block.kv->rotations();
  const int64_t window = block.kv->window();
  const Selection& selection = block.selection;
  const size_t pairs = rotations.pairs();
  const auto [first, last] = std::ranges::minmax(block.tokens);
  for (size_t i = 0; i < selection.pages.size(); ++i) {
    const SelectedPage& page = selection.pages[i];
    const PageEntry& entry = table[page.entry];
    PageRead read;
    read.mask = page.mask & visible_mask(entry, window, first, last);
    if (read.mask == 0) continue;
    read.keys = page.keys ? page.keys : store.keys(entry.page);
    read.values = store.values(entry.page);
    if (pairs > 0) {
      const PositionRotations::View rotation = rotations.at(page.position, block.rotations.data() + i * 2 * pairs);
      read.cos = rotation.cos;
      read.sin = rotation.sin;
    }
    const bool rows_differ = (read.mask & ~visible_mask(entry, window, last, first)) != 0;
    if (rows_differ || page.row_masks >= 0) {
      uint64_t* masks = block.row_masks.data() + i * block.rows;
      for (int r = 0; r < block.rows; ++r) {
        masks[r] = visible_mask(entry, window, block.tokens[r]);
        if (page.row_masks >= 0) masks[r] &= selection.row_masks[page.row_masks + r];
        block.count.attended += static_cast<int64_t>(block.group) * std::popcount(read.mask & masks[r]);
      }
      read.row_masks = masks;
    } else {
      block.count.attended += static_cast<int64_t>(block.queries_count()) * std::popcount(read.mask);
    }
    block.reads.push_back(read);
    block.read_tokens.push_back(entry.first);
    block.last_page_end = entry.first + entry.filled;
  }
}

QueryBlock Attention::query_block(const AttentionInput& input, const AttentionBlock& block) const {
  QueryBlock query;
  query.layer = input.layer;
  query.head = block.head;
  query.group = block.group;
  query.first = std::ranges::min(block.tokens);
  query.rows = block.rows;
  query.visible_from = window_begin(block.kv->window(), query.first);
  query.positions = input.positions + block.first_row;
  query.queries = block.queries.data();
  query.kv = block.kv;
  query.kernels = &kernels_;
  query.state = input.selector_state;
  return query;
}

void Attention::notify_watcher(const AttentionInput& input, const AttentionBlock& block, const float* lse) const {
  if (!input.watcher || !input.watcher->watches(input.layer)) return;
  const QueryBlock query = query_block(input, block);
  input.watcher->observe(
      {*input.kv, query, block.selection, lse, *input.form, input.form->weights(kernels_, block)});
}

void Attention::prepare(const AttentionInput& input, const HeadRows& rows, AttentionBlock& block) const {
  block.kv = input.kv;
  block.layer = input.layer;
  block.head = rows.head;
  block.group = input.group();
  block.first_row = rows.first;
  block.rows = rows.count;
  block.tokens.resize(rows.count);
  for (int r = 0; r < rows.count; ++r) block.tokens[r] = input.token(rows.first + r);
  block.second_pass = false;
  rotate_queries(input, block);
  const QueryBlock query = query_block(input, block);
  block.selection.clear();
  const int64_t before = nanoseconds();
  input.selector->select(input.kv->table(block.head), query, block.selection);
  block.count.selecting += nanoseconds() - before;
  const size_t pages = block.selection.pages.size();
  if (const uint64_t unattended = input.form->unattended()) {
    for (SelectedPage& page : block.selection.pages) page.mask &= ~unattended;
  }
  block.reads.clear();
  block.read_tokens.clear();
  block.rotations.resize(pages * 2 * static_cast<size_t>(input.kv->rotations().pairs()));
  block.row_masks.resize(pages * block.rows);
  read_pages(block);
  input.form->count(block);
  for (const int64_t token : block.tokens)
    block.count.visible += block.group * (token + 1 - window_begin(input.kv->window(), token));
}

void Attention::store(const AttentionInput& input, const AttentionBlock& block, float* out, float* lse) const {
  const int value_dim = block.kv->shape().value_dim, group = block.group;
  for (int q = 0; input.form->has_finish() && q < block.queries_count(); ++q)
    input.form->finish(block.head * group + q % group, value_dim, out + static_cast<int64_t>(q) * value_dim,
                       lse[q]);
  for (int r = 0; r < block.rows; ++r) {
    const int64_t at = (block.first_row + r) * input.heads + static_cast<int64_t>(block.head) * group;
    std::copy_n(out + static_cast<int64_t>(r) * group * value_dim, static_cast<int64_t>(group) * value_dim,
                input.out + at * value_dim);
    if (input.lse) std::copy_n(lse + static_cast<int64_t>(r) * group, group, input.lse + at);
  }
}

/// Each block of rows is one task that covers all its pages. Later rows attend to more tokens; they are scheduled
/// first, so that the last tasks are small. Few queries over many pages are only prepared here, one task per head;
/// their pages are split into parts afterwards. A block of a draft has one row, unless the rows of a block are
/// independent of each other.
void Attention::list_tasks(std::span<const AttentionInput> inputs) {
  tasks_.clear();
  prepared_count_ = 0;
  for (const AttentionInput& input : inputs) {
    assert(input.heads % input.kv->heads() == 0);
    const int heads = input.kv->heads();
    const auto pages = static_cast<int64_t>(input.kv->table(0).size());
    const int draft_rows = has_independent_rows(input) ? std::max(1, kDraftQueries / input.group()) : 1;
    const int64_t block_rows = input.draft ? draft_rows : std::max(1, kBlockQueries / input.group());
    const bool by_parts = (input.draft ? 1 : input.rows) * input.group() <= kPartQueries && pages > kPartPages;
    for (int64_t end = input.rows, first = 0; end > 0; end = first) {
      first = input.draft ? draft_block_begin(input, end, block_rows) : task_begin(input, end, block_rows);
      const int rows = static_cast<int>(end - first);
      for (int head = 0; head < heads; ++head) {
        const int64_t prepared = by_parts ? static_cast<int64_t>(prepared_count_++) : -1;
        tasks_.push_back({&input, {head, first, rows}, prepared});
      }
    }
  }
  if (prepared_.size() < prepared_count_) prepared_.resize(prepared_count_);
}

void Attention::attend_block(const BlockTask& task, int thread) {
  const AttentionInput& input = *task.input;
  AttentionScratch& scratch = scratch_[thread];
  AttentionBlock& block = scratch.block;
  prepare(input, task.rows, block);
  scratch.out.resize(static_cast<size_t>(block.queries_count()) * input.kv->shape().value_dim);
  scratch.lse.resize(block.queries_count());
  float *out = scratch.out.data(), *lse = scratch.lse.data();
  const auto pages = static_cast<int64_t>(block.reads.size());
  if (input.form->has_second_pass()) {
    input.form->attend(kernels_, block, 0, pages, nullptr, lse, scratch);
    input.form->prepare_second_pass(block, lse);
    block.second_pass = true;
  }
  input.form->attend(kernels_, block, 0, pages, out, lse, scratch);
  store(input, block, out, lse);
  notify_watcher(input, block, lse);
}

void Attention::list_parts() {
  parts_.clear();
  size_t out = 0, lse = 0;
  for (const BlockTask& task : tasks_) {
    if (task.prepared < 0) continue;
    AttentionBlock& block = prepared_[task.prepared];
    const auto queries = static_cast<size_t>(block.queries_count());
    const auto pages = static_cast<int64_t>(block.reads.size());
    int64_t begin = 0;
    do {
      parts_.push_back({task.input, &block, begin, std::min(begin + kPartPages, pages), out, lse});
      out += queries * block.kv->shape().value_dim;
      lse += queries;
      begin += kPartPages;
    } while (begin < pages);
  }
  partial_out_.resize(out);
  partial_lse_.resize(lse);
}

/// Orders the parts so that all rows of a draft attend to the same pages one after the other, while the pages are
/// in the caches.
void Attention::order_parts() {
  part_order_.resize(parts_.size());
  std::iota(part_order_.begin(), part_order_.end(), 0);
  const auto pages_of = [&](size_t i) {
    const PagePart& part = parts_[i];
    return std::tuple(part.input, part.block->head, part.begin);
  };
  if (std::ranges::any_of(parts_, [](const PagePart& part) { return part.input->draft; }))
    std::ranges::stable_sort(part_order_, {}, pages_of);
}

void Attention::attend_parts(AttendPass pass) {
  pool_.parallel_for(parts_.size(), [&](size_t i, int thread) {
    const PagePart& part = parts_[part_order_[i]];
    const AttentionForm& form = *part.input->form;
    if (pass == AttendPass::kFirst && !form.has_second_pass()) return;
    form.attend(kernels_, *part.block, part.begin, part.end,
                pass == AttendPass::kFirst ? nullptr : partial_out_.data() + part.out,
                partial_lse_.data() + part.lse, scratch_[thread]);
  });
}

/// Merges the parts of each head in order. In the first pass only log-sum-exps are merged.
void Attention::merge_parts(AttendPass pass) {
  for (size_t p = 0; p < parts_.size();) {
    const PagePart& first = parts_[p];
    const int value_dim = pass == AttendPass::kFirst ? 0 : first.input->kv->shape().value_dim;
    const int queries = first.block->queries_count();
    float* out = partial_out_.data() + first.out;
    float* lse = partial_lse_.data() + first.lse;
    for (++p; p < parts_.size() && parts_[p].begin > 0; ++p) {
      for (int q = 0; q < queries; ++q) {
        merge_attention(out + static_cast<int64_t>(q) * value_dim, lse[q],
                        partial_out_.data() + parts_[p].out + static_cast<int64_t>(q) * value_dim,
                        partial_lse_[parts_[p].lse + q], value_dim);
      }
    }
    if (pass == AttendPass::kFirst) {
      if (first.input->form->has_second_pass()) {
        first.input->form->prepare_second_pass(*first.block, lse);
        first.block->second_pass = true;
      }
      continue;
    }
    store(*first.input, *first.block, out, lse);
    notify_watcher(*first.input, *first.block, lse);
  }
}

void Attention::add(AttentionCount& count) {
  count_ += count;
  count = {};
}

/// Runs the selector's plan() and the listener, which work on a whole layer and may use all threads.
void Attention::plan(const AttentionInput& input) {
  const int64_t begin = nanoseconds();
  LayerQueries queries = input.layer_queries(kernels_);
  queries.state = input.selector_state;
  input.selector->plan(queries, pool_);
  if (input.listener && !input.draft) {
    queries.state = input.listener_state;
    input.listener->listen(queries, pool_);
  }
  count_.selecting += (nanoseconds() - begin) * pool_.threads();
}

/// Plans and attends row by row, as passes of one row each would. The later rows are invisible to selectors.
void Attention::run_rows(const AttentionInput& input) {
  AttentionInput row = input;
  row.rows = 1;
  for (int64_t i = 0; i < input.rows; ++i) {
    const int64_t later = input.rows - 1 - i;
    const std::unique_ptr<const PagedKv> kv = later > 0 ? input.kv->without_newest(later) : nullptr;
    row.kv = kv ? kv.get() : input.kv;
    row.positions = input.positions + i;
    row.queries = input.queries + i * input.query_stride;
    row.out = input.out + i * input.heads * input.kv->shape().value_dim;
    row.lse = input.lse ? input.lse + i * input.heads : nullptr;
    plan(row);
    attend({&row, 1});
  }
}

/// Replaces softmax by the form of contexts that were read alone, if the sequence has some. Throws Error if the
/// layer has another form.
void Attention::use_parallel_form(AttentionInput& input) {
  const ParallelContexts* contexts = input.sequence ? input.sequence->parallel() : nullptr;
  if (!contexts) return;
  if (input.form != &softmax_form())
    fail_usage("ape: expected a model and an --attend method with softmax attention; layer ", input.layer,
               " has another kind");
  input.form = &parallel_forms_.emplace_back(*contexts);
}

void Attention::run(std::span<const AttentionInput> inputs) {
  const int64_t begin = nanoseconds();
  together_.clear();
  parallel_forms_.clear();
  std::vector<AttentionInput> by_row;
  for (AttentionInput input : inputs) {
    use_parallel_form(input);
    if (input.draft && input.selector_state) {
      by_row.push_back(input);
      continue;
    }
    plan(input);
    together_.push_back(input);
  }
  if (!together_.empty()) attend(together_);
  for (const AttentionInput& input : by_row) run_rows(input);
  count_.running += (nanoseconds() - begin) * pool_.threads();
}

void Attention::attend(std::span<const AttentionInput> inputs) {
  list_tasks(inputs);
  pool_.parallel_for(tasks_.size(), [&](size_t i, int thread) {
    const BlockTask& task = tasks_[i];
    if (task.prepared < 0) {
      attend_block(task, thread);
    } else {
      prepare(*task.input, task.rows, prepared_[task.prepared]);
    }
  });
  for (AttentionScratch& scratch : scratch_) add(scratch.block.count);
  for (size_t i = 0; i < prepared_count_; ++i) add(prepared_[i].count);
  if (prepared_count_ == 0) return;
  list_parts();
  order_parts();
  const bool twice =
      std::any_of(parts_.begin(), parts_.end(), [](const PagePart& p) { return p.input->form->has_second_pass(); });
  if (twice) {
    attend_parts(AttendPass::kFirst);
    merge_parts(AttendPass::kFirst);
  }
  attend_parts(AttendPass::kLast);
  merge_parts(AttendPass::kLast);
}

}  // namespace fathom
