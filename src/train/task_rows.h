#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tokens/tokenizer.h"
#include "train/batch.h"
#include "train/task_source.h"
#include "train/token_store.h"

namespace fathom::train {

/// Loss weights of the tokens of a task. A token of a book has 1.
struct TaskWeights {
  double answer = 1;  // tokens of answers
  double rest = 0.1;  // other tokens; many of them are random
};

/// The token ids of a task's text, followed by EOS, and their loss weights. EOS has the weight of an answer.
struct WeightedIds {
  std::vector<int32_t> ids;
  std::vector<float> weights;
};
/// Encodes a text, marks the tokens of its answers and appends EOS.
WeightedIds weighted_ids(const Tokenizer& tokenizer, const MarkedText& text, const TaskWeights& weights);

/// A kind of task and its relative frequency.
struct TaskKind {
  std::shared_ptr<const TaskSource> task;
  double weight = 1;
};

/// Rows of tokens with tasks hidden in passages of books. Not thread-safe.
class TaskRows {
 public:
  /// books and tokenizer must outlive this. Throws Error (usage) if a kind's weight is not above 0.
  TaskRows(const TokenStore& books, const Tokenizer& tokenizer, std::vector<TaskKind> kinds, TaskWeights weights);

  bool empty() const { return kinds_.empty(); }
  /// Adds a row of batch.length tokens: one task, padded with EOS of weight 0. A kind whose shortest text is too
  /// long is replaced by another kind. Throws Error if none fits.
  void add(eval::Rng& rng, Batch& batch) const;
  /// Returns a passage of a random book of about `bytes` bytes, or the whole book if it is shorter.
  std::string prose(eval::Rng& rng, int64_t bytes) const;

 private:
  const TaskSource& draw_kind(eval::Rng& rng) const;
  WeightedIds fitting(const TaskSource& kind, eval::Rng& rng, int64_t length) const;

  const TokenStore& books_;
  const Tokenizer& tokenizer_;
  std::vector<TaskKind> kinds_;
  TaskWeights weights_;
  double bytes_per_token_ = 0;  // of the books, estimated
};

/// Batches of tasks only, with rows of one length.
class TaskBatches final : public BatchSource {
 public:
  TaskBatches(TaskRows rows, int64_t sequences, int64_t length, uint64_t seed)
      : rows_(std::move(rows)), sequences_(sequences), length_(length), seed_(seed) {}
  Batch batch(int64_t step) override;

 private:
  TaskRows rows_;
  int64_t sequences_, length_;
  uint64_t seed_;
};

}  // namespace fathom::train
