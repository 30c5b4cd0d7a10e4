#include "memory/recurrent_state.h"

#include <algorithm>
#include <cassert>

#include "base/error.h"

namespace fathom {
namespace {

int64_t padded(int64_t floats) {
  constexpr int64_t kLine = kAlignment / sizeof(float);
  return (floats + kLine - 1) / kLine * kLine;
}

}  // namespace

int64_t RecurrentLayout::floats() const { return offset(tensors.size()); }

int64_t RecurrentLayout::offset(size_t tensor) const {
  int64_t at = 0;
  for (size_t i = 0; i < tensor; ++i) at += padded(tensors[i].size);
  return at;
}

RecurrentState::RecurrentState(std::shared_ptr<const RecurrentLayout> layout, std::shared_ptr<MemoryBudget> budget)
    : layout_(std::move(layout)), budget_(std::move(budget)) {}

std::unique_ptr<LayerState> RecurrentState::fork() const {
  assert(opened_.empty());
  auto copy = std::make_unique<RecurrentState>(layout_, budget_);
  copy->tokens_ = tokens_;
  copy->committed_ = committed_;
  copy->checkpoints_ = checkpoints_;
  return copy;
}

void RecurrentState::open(const OpenedTokens& tokens) {
  assert(opened_.empty());
  stops_.assign(tokens.stops.begin(), tokens.stops.end());
  checkpoints_.reserve(checkpoints_.size() + 1 + stops_.size());  // so that commit() allocates nothing
  opened_.reserve(stops_.size());
  for (size_t i = 0; i < stops_.size(); ++i)
    opened_.push_back(spare_ ? std::move(spare_) : std::make_shared<Snapshot>(budget_, layout_->floats()));
}

void RecurrentState::commit() noexcept {
  if (opened_.empty()) return;
  if (tokens_ > 0) checkpoints_.push_back({tokens_, std::move(committed_)});
  for (size_t i = 0; i + 1 < opened_.size(); ++i)
    checkpoints_.push_back({tokens_ + stops_[i], std::move(opened_[i])});
  tokens_ += stops_.back();
  committed_ = std::move(opened_.back());
  opened_.clear();
  stops_.clear();
}

void RecurrentState::accept(int64_t count) {
  stops_.resize(count);
  opened_.resize(count);
  commit();
  stops_.clear();
}

int64_t RecurrentState::floor(int64_t tokens) const {
  if (tokens >= tokens_) return tokens_;
  int64_t best = 0;
  for (const Checkpoint& checkpoint : checkpoints_)
    if (checkpoint.tokens <= tokens) best = checkpoint.tokens;
  return best;
}

void RecurrentState::truncate(int64_t tokens) {
  opened_.clear();
  stops_.clear();
  if (tokens == tokens_) return;
  restore(tokens, snapshot(tokens));
}

std::shared_ptr<const RecurrentState::Snapshot> RecurrentState::snapshot(int64_t tokens) const {
  if (tokens == tokens_) return committed_;
  for (const Checkpoint& checkpoint : checkpoints_)
    if (checkpoint.tokens == tokens) return checkpoint.state;
  if (tokens != 0) fail("the recurrent state after ", tokens, " tokens was not stored as a checkpoint");
  return nullptr;
}

std::shared_ptr<const RecurrentState::Snapshot> RecurrentState::make_snapshot(std::span<const float> floats) const {
  const auto made = std::make_shared<Snapshot>(budget_, floats.size());
  std::ranges::copy(floats, made->floats.data());
  return made;
}

void RecurrentState::advance(int64_t tokens, std::shared_ptr<const Snapshot> state) {
  if (tokens_ > 0) checkpoints_.push_back({tokens_, std::move(committed_)});
  tokens_ = tokens;
  committed_ = std::move(state);
}

void RecurrentState::restore(int64_t tokens, std::shared_ptr<const Snapshot> state) {
  assert(opened_.empty());
  committed_ = std::move(state);
  tokens_ = tokens;
  std::erase_if(checkpoints_, [&](const Checkpoint& checkpoint) { return checkpoint.tokens >= tokens; });
}

size_t RecurrentState::bytes() const {
  return (checkpoints_.size() + opened_.size() + (committed_ ? 1 : 0)) * state_bytes();
}

const float* RecurrentState::before(size_t segment, size_t tensor) const {
  const Snapshot* state = state_before(segment);
  return state ? state->floats.data() + layout_->offset(tensor) : nullptr;
}

void RecurrentState::fill(std::span<const float> numbers) {
  for (const auto& state : opened_)
    for (size_t i = 0; i < state->floats.size(); ++i) state->floats[i] = numbers[i % numbers.size()];
}

std::vector<int64_t> RecurrentState::checkpoints() const {
  std::vector<int64_t> tokens;
  for (const Checkpoint& checkpoint : checkpoints_) tokens.push_back(checkpoint.tokens);
  return tokens;
}

void RecurrentState::keep_checkpoints(std::span<const int64_t> kept) noexcept {
  auto to = checkpoints_.begin();
  for (Checkpoint& checkpoint : checkpoints_) {
    if (std::ranges::binary_search(kept, checkpoint.tokens)) {
      if (&*to != &checkpoint) *to = std::move(checkpoint);
      ++to;
    } else if (!spare_ && checkpoint.state.use_count() == 1) {
      spare_ = std::const_pointer_cast<Snapshot>(std::move(checkpoint.state));
    }
  }
  checkpoints_.erase(to, checkpoints_.end());
}

std::vector<int64_t> needed_checkpoints(std::span<const int64_t> candidates, int64_t end, int64_t spacing) {
  std::vector<int64_t> kept;
  int64_t next = end;  // the nearest kept checkpoint above the candidate
  for (size_t i = candidates.size(); i-- > 0;) {
    // Without this candidate, a rewind to the last token before `next` re-reads from the candidate before it.
    const int64_t before = i > 0 ? candidates[i - 1] : 0;
    if (next - before <= std::max(spacing, end - next)) continue;
    kept.push_back(candidates[i]);
    next = candidates[i];
  }
  std::ranges::reverse(kept);
  return kept;
}

}  // namespace fathom
