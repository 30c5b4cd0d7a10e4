#include "memory/sequence.h"

#include <algorithm>
#include <cassert>

#include "base/error.h"

namespace fathom {
namespace {

/// Returns the next position of the layers with pages, or the number of tokens if there are none.
int64_t position_after(std::span<PagedKv* const> paged, int64_t tokens) {
  for (const PagedKv* kv : paged)
    if (kv) return kv->next_position();
  return tokens;
}

}  // namespace

void TokenList::append(std::span<const int32_t> ids) {
  for (const int32_t id : ids) {
    if (tail_.size() == kBlock) close_tail();
    tail_.push_back(id);
  }
}

/// Moves the tail to a new block. Allocates before changing anything, including the memory that truncate needs to
/// undo it.
void TokenList::close_tail() {
  std::vector<int32_t> next;
  next.reserve(kBlock);
  if (blocks_.size() == blocks_.capacity()) blocks_.reserve(2 * blocks_.size() + 1);
  blocks_.push_back(std::make_shared<const std::vector<int32_t>>(std::move(tail_)));
  tail_ = std::move(next);
}

void TokenList::truncate(int64_t n) {
  if (n >= size()) return;
  const size_t whole = static_cast<size_t>(n) / kBlock;
  if (whole < blocks_.size()) {
    tail_ = *blocks_[whole];
    blocks_.resize(whole);
  }
  tail_.resize(static_cast<size_t>(n) % kBlock);
}

std::vector<int32_t> TokenList::copy(int64_t begin, int64_t end) const {
  std::vector<int32_t> ids;
  ids.reserve(end - begin);
  for (int64_t i = begin; i < end; ++i) ids.push_back((*this)[i]);
  return ids;
}

Sequence::Sequence(std::vector<std::unique_ptr<LayerState>> layers, CheckpointPolicy checkpoints,
                   std::vector<ScaledAdapter> adapters, std::shared_ptr<MemoryBudget> budget)
    : layers_(std::move(layers)),
      checkpoints_(std::move(checkpoints)),
      adapters_(std::move(adapters)),
      budget_(budget),
      state_charge_(std::move(budget), 0) {
  index_layers();
}

void Sequence::index_layers() {
  paged_.clear();
  recurrent_.clear();
  for (const auto& layer : layers_) {
    paged_.push_back(layer->paged());
    recurrent_.push_back(layer->recurrent());
  }
}

Sequence Sequence::fork() const {
  assert(!is_open());
  std::vector<std::unique_ptr<LayerState>> layers;
  layers.reserve(layers_.size());
  for (const auto& layer : layers_) layers.push_back(layer->fork());
  Sequence copy(std::move(layers), checkpoints_, adapters_, budget_);
  for (size_t i = 0; i < states_.size(); ++i)
    if (states_[i]) copy.states_[i] = states_[i]->fork();
  copy.parallel_ = parallel_;
  copy.ids_ = ids_;
  copy.tokens_ = copy.committed_ = tokens_;
  copy.next_position_ = next_position_;
  if (has_recurrent_layers()) copy.keep_checkpoints(copy.plan_checkpoints(tokens_, tokens_));
  return copy;
}

bool Sequence::has_recurrent_layers() const {
  return std::ranges::any_of(recurrent_, [](const RecurrentState* state) { return state != nullptr; });
}

int Sequence::max_heads() const {
  int max = 0;
  for (const PagedKv* kv : paged_)
    if (kv) max = std::max(max, kv->heads());
  return max;
}

int64_t Sequence::first_position() const {
  for (const PagedKv* kv : paged_)
    if (kv && kv->tokens() > 0 && !kv->table(0).empty()) return kv->table(0).front().position;
  return 0;
}

int64_t Sequence::end_position() const {
  int64_t end = next_position_;
  for (const PagedKv* kv : paged_)
    if (kv) end = std::max(end, kv->end_position());
  return end;
}

/// Opens tokens in all layers, or in none if one throws.
void Sequence::open_layers(const OpenedTokens& tokens) {
  assert(!is_open());
  try {
    for (const auto& layer : layers_) layer->open(tokens);
  } catch (...) {
    for (const auto& layer : layers_) layer->truncate(committed_);
    throw;
  }
}

/// Returns the checkpoints to keep once tokens [begin, end) are committed. Candidates are the existing checkpoints,
/// the state at `begin`, and multiples of the spacing between `begin` and `end`.
std::vector<int64_t> Sequence::plan_checkpoints(int64_t begin, int64_t end) const {
  const auto first = std::ranges::find_if(recurrent_, [](const RecurrentState* state) { return state != nullptr; });
  std::vector<int64_t> candidates = (*first)->checkpoints();
  if (begin > 0 && begin < end) candidates.push_back(begin);
  for (int64_t at = (begin / checkpoints_.spacing + 1) * checkpoints_.spacing; at < end; at += checkpoints_.spacing)
    candidates.push_back(at);
  return needed_checkpoints(candidates, end, checkpoints_.spacing);
}

size_t Sequence::checkpoint_bytes() const {
  size_t bytes = 0;
  for (const RecurrentState* state : recurrent_)
    if (state) bytes += state->state_bytes();
  return bytes;
}

/// Keeps the newest of these checkpoints that fit in the budget.
void Sequence::keep_checkpoints(std::span<const int64_t> kept) noexcept {
  const size_t bytes = checkpoint_bytes();
  checkpoint_charge_ = {};
  while (!kept.empty()) {
    checkpoint_charge_ = BudgetCharge::try_take(checkpoints_.budget, kept.size() * bytes);
    if (checkpoint_charge_.bytes() > 0) break;
    kept = kept.subspan(1);
  }
  for (RecurrentState* state : recurrent_)
    if (state) state->keep_checkpoints(kept);
}

/// Sets the charge for the states of methods to their bytes.
void Sequence::charge_states() {
  if (!budget_ || budget_->limit() == 0) return;
  size_t bytes = 0;
  for (const auto& state : states_)
    if (state) bytes += state->bytes();
  state_charge_.resize(bytes);
}

void Sequence::open(std::span<const int64_t> positions, std::span<const int32_t> ids, bool keep_states) {
  assert(ids.empty() || ids.size() == positions.size());
  charge_states();
  const int64_t count = std::ssize(positions), end = tokens_ + count;
  std::vector<int64_t> stops;
  if (keep_states) {
    for (int64_t at = 1; at < count; ++at) stops.push_back(at);
  } else if (has_recurrent_layers()) {
    planned_checkpoints_ = plan_checkpoints(tokens_, end);
    for (const int64_t at : planned_checkpoints_)
      if (at > tokens_) stops.push_back(at - tokens_);
  }
  if (count > 0) stops.push_back(count);
  OpenedTokens opened;
  opened.positions = positions;
  opened.stops = stops;
  open_layers(opened);
  try {
    ids_.append(ids.empty() ? std::vector<int32_t>(positions.size(), -1)
                            : std::vector<int32_t>(ids.begin(), ids.end()));
  } catch (...) {
    abandon();
    throw;
  }
  tokens_ = end;
  if (!positions.empty()) next_position_ = positions.back() + 1;
}

void Sequence::commit() noexcept {
  for (const auto& layer : layers_) layer->commit();
  committed_ = tokens_;
  if (has_recurrent_layers()) keep_checkpoints(planned_checkpoints_);
}

void Sequence::abandon() noexcept {
  for (const auto& layer : layers_) layer->truncate(committed_);
  for (const auto& state : states_)  // selectors may have planned for open tokens
    if (state && tokens_ > committed_) state->rewind(committed_);
  ids_.truncate(committed_);
  tokens_ = committed_;
  next_position_ = position_after(paged_, tokens_);
}

void Sequence::accept(int64_t count) {
  try {
    for (const auto& layer : layers_) layer->accept(count);
  } catch (...) {
    abandon();
    throw;
  }
  tokens_ = committed_ += count;
  ids_.truncate(tokens_);
  next_position_ = position_after(paged_, tokens_);
  if (has_recurrent_layers()) keep_checkpoints(plan_checkpoints(tokens_, tokens_));
}

/// Discards what a failed adoption has appended to some of the layers.
void Sequence::discard_adopted() {
  for (PagedKv* kv : paged_)
    if (kv && kv->tokens() > committed_) kv->truncate(committed_);
  ids_.truncate(committed_);
}

void Sequence::adopt(std::span<const std::vector<PageId>> pages, std::span<const int32_t> ids) {
  assert(!is_open() && ids.size() == kPageTokens);
  try {
    for (int layer = 0; layer < layers(); ++layer)
      if (paged_[layer]) paged_[layer]->adopt(pages[layer]);
    ids_.append(ids);
  } catch (...) {
    discard_adopted();
    throw;
  }
  tokens_ += kPageTokens;
  next_position_ += kPageTokens;
  committed_ = tokens_;
}

void Sequence::adopt_states(std::span<const std::shared_ptr<const RecurrentState::Snapshot>> states) {
  for (int layer = 0; layer < layers(); ++layer)
    if (recurrent_[layer]) recurrent_[layer]->advance(tokens_, states[layer]);
  keep_checkpoints(plan_checkpoints(tokens_, tokens_));
}

void Sequence::adopt(const Sequence& from, int64_t begin, int64_t end, int64_t position) {
  assert(!is_open() && !has_recurrent_layers() && from.layers() >= layers());
  try {
    for (int layer = 0; layer < layers(); ++layer)
      if (paged_[layer]) paged_[layer]->adopt(from.kv(layer), begin, end, position);
    ids_.append(from.ids().copy(begin, end));
  } catch (...) {
    discard_adopted();
    throw;
  }
  tokens_ += end - begin;
  committed_ = tokens_;
  next_position_ = position_after(paged_, tokens_);
}

int64_t Sequence::page_begin(int64_t token) const {
  const auto next_in = [](const PageTable& table, int64_t at, int64_t end) {
    const auto entry = std::ranges::lower_bound(table, at, {}, &PageEntry::first);
    return entry == table.end() ? end : entry->first;
  };
  for (int64_t at = token;; token = at) {
    for (const PagedKv* kv : paged_)
      for (int head = 0; kv && head < kv->heads(); ++head) at = next_in(kv->table(head), at, tokens_);
    if (at == token) return at;
  }
}

bool Sequence::is_evicted() const {
  for (const PagedKv* kv : paged_) {
    for (int head = 0; kv && head < kv->heads(); ++head) {
      if (!kv->compacted(head).original_indices.empty()) return true;
      for (const PageEntry& entry : kv->table(head))
        if (entry.page == kNoPage) return true;
    }
  }
  return false;
}

void Sequence::restore(std::span<const int32_t> ids) {
  assert(tokens_ == 0);
  ids_.append(ids);
  tokens_ = committed_ = std::ssize(ids);
  next_position_ = position_after(paged_, tokens_);
  if (has_recurrent_layers()) keep_checkpoints(plan_checkpoints(tokens_, tokens_));
}

int64_t Sequence::floor(int64_t tokens) const {
  // Layers may have different checkpoints: lower the length until all can be truncated to it.
  for (int64_t lowest = tokens;; tokens = lowest) {
    for (const auto& layer : layers_) lowest = std::min(lowest, layer->floor(lowest));
    if (lowest == tokens) return lowest;
  }
}

void Sequence::truncate(int64_t tokens) {
  if (tokens < 0 || tokens > tokens_) fail("cannot truncate a sequence of ", tokens_, " tokens to ", tokens);
  for (const auto& layer : layers_) layer->truncate(tokens);
  if (parallel_ && tokens < parallel_->end) parallel_.reset();
  ids_.truncate(tokens);
  tokens_ = committed_ = tokens;
  next_position_ = position_after(paged_, tokens);
  for (const auto& state : states_)
    if (state) state->rewind(tokens);
  if (has_recurrent_layers()) keep_checkpoints(plan_checkpoints(tokens, tokens));
}

void Sequence::move_to(int64_t position) {
  for (const PagedKv* kv : paged_)
    if (kv) kv->check_move(position);
  for (PagedKv* kv : paged_) {
    if (!kv) continue;
    kv->move_to(position);
    next_position_ = kv->next_position();
  }
}

void Sequence::mask(int64_t begin, int64_t end) {
  for (PagedKv* kv : paged_)
    for (int head = 0; kv && head < kv->heads(); ++head) kv->mask(head, begin, end);
}

size_t Sequence::bytes() const {
  size_t bytes = ids_.bytes();
  for (const auto& layer : layers_) bytes += layer->bytes();
  return bytes;
}

}  // namespace fathom
