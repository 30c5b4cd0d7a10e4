#include "train/decomposition.h"

#include <numeric>

#include "base/error.h"
#include "eval/rng.h"

namespace fathom::train {
namespace {

constexpr int32_t kMaxLevel = 30;

/// Returns the level of the next piece of a document with `left` remaining tokens: the highest that fits. With
/// options.spread it is drawn from [min_level, max_level], each level half as often as the next lower one, so that
/// all levels get the same number of tokens.
int32_t next_level(int64_t left, const DecompositionOptions& options, eval::Rng& rng) {
  int32_t level = options.max_level;
  if (left >= int64_t{1} << level && options.spread) {
    const int32_t levels = options.max_level - options.min_level + 1;
    int64_t drawn = rng.below((int64_t{1} << levels) - 1) + 1;
    for (; drawn > 1; drawn >>= 1) --level;
    return level;
  }
  while (left < int64_t{1} << level) --level;
  return level;
}

void check(const DecompositionOptions& o) {
  if (o.min_level < 0 || o.max_level < o.min_level || o.max_level > kMaxLevel) {
    fail_usage("lengths of 2^", o.min_level, " to 2^", o.max_level,
               " tokens, expected ascending powers between 2^0 and 2^", kMaxLevel);
  }
  const int64_t longest = int64_t{1} << o.max_level;
  if (o.batch_tokens <= 0 || o.batch_tokens % longest != 0)
    fail_usage("batches of ", o.batch_tokens, " tokens, expected a multiple of the longest length, ", longest);
  if (o.cycles < 1) fail_usage("cycles of an epoch: expected 1 or more, found ", o.cycles);
}

}  // namespace

Decomposition::Decomposition(std::span<const int64_t> lengths, const DecompositionOptions& options)
    : options_(options) {
  check(options_);
  buckets_.resize(options_.max_level - options_.min_level + 1);
  for (size_t document = 0; document < lengths.size(); ++document) {
    eval::Rng rng(options_.seed, "pieces of a document", 0, static_cast<int64_t>(document));
    const int64_t shortest = int64_t{1} << options_.min_level;
    for (int64_t begin = 0; lengths[document] - begin >= shortest;) {
      const int32_t level = next_level(lengths[document] - begin, options_, rng);
      buckets_[level - options_.min_level].push_back({static_cast<int32_t>(document), level, begin});
      begin += int64_t{1} << level;
    }
  }
  for (int32_t level = options_.min_level; level <= options_.max_level; ++level) steps_per_epoch_ += batches(level);
  if (steps_per_epoch_ == 0) {
    fail_usage("the documents have ", std::accumulate(lengths.begin(), lengths.end(), int64_t{0}),
               " tokens, too few for a batch of ", options_.batch_tokens, " tokens of one length");
  }
}

int64_t Decomposition::batches(int32_t level) const { return std::ssize(pieces(level)) / pieces_per_batch(level); }

void Decomposition::plan(int64_t epoch) {
  order_.clear();
  shuffled_.assign(buckets_.size(), {});
  for (size_t i = 0; i < buckets_.size(); ++i) {
    shuffled_[i].resize(buckets_[i].size());
    std::iota(shuffled_[i].begin(), shuffled_[i].end(), 0);
    eval::Rng(options_.seed, "pieces of an epoch", static_cast<int64_t>(i), epoch).shuffle(shuffled_[i]);
  }
  eval::Rng rng(options_.seed, "batches of an epoch", 0, epoch);
  for (int32_t cycle = 0; cycle < options_.cycles; ++cycle) plan_cycle(cycle, rng);
  epoch_ = epoch;
}

void Decomposition::plan_cycle(int32_t cycle, eval::Rng& rng) {
  const auto levels = static_cast<int32_t>(buckets_.size());
  std::vector<int64_t> next(levels), left(levels), weights(levels);
  for (int32_t i = 0; i < levels; ++i) {
    const int64_t all = batches(options_.min_level + i);
    next[i] = all * cycle / options_.cycles;
    left[i] = all * (cycle + 1) / options_.cycles - next[i];
  }
  for (;;) {
    for (int32_t i = 0; i < levels; ++i)
      weights[i] = options_.curriculum == Curriculum::kGrow ? left[i] << (levels - 1 - i) : left[i];
    const int64_t sum = std::accumulate(weights.begin(), weights.end(), int64_t{0});
    if (sum == 0) return;
    int32_t chosen = 0;
    for (int64_t drawn = rng.below(sum); drawn >= weights[chosen]; ++chosen) drawn -= weights[chosen];
    order_.push_back({options_.min_level + chosen, next[chosen]++});
    --left[chosen];
  }
}

PieceBatch Decomposition::batch(int64_t step) {
  if (step < 0) fail("step ", step, ": expected 0 or more");
  if (const int64_t epoch = step / steps_per_epoch_; epoch != epoch_) plan(epoch);
  const BatchIndex& index = order_[step % steps_per_epoch_];
  PieceBatch batch{index.level, {}};
  const int64_t count = pieces_per_batch(index.level);
  for (int64_t i = index.number * count; i < (index.number + 1) * count; ++i)
    batch.pieces.push_back(pieces(index.level)[shuffled_[index.level - options_.min_level][i]]);
  return batch;
}

}  // namespace fathom::train
