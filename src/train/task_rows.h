#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tokens/tokenizer.h"
#include "train/batch.h"
#include "train/task_source.h"
#include "train/token_store.h"

namespace fathom::train {

struct TaskWeights {
  double answer = 1;  // of a task's answers in the loss; a token of a book has 1
  double rest = 0.1;  // of what else a task says: much of it is random
};

/// The ids of a task's text with EOS behind it, and the weight of each in the loss; EOS weighs as an answer does.
struct WeightedIds {
  std::vector<int32_t> ids;
  std::vector<float> weights;
};
WeightedIds weighted_ids(const Tokenizer& tokenizer, const MarkedText& text, const TaskWeights& weights);

struct TaskKind {
  std::shared_ptr<const TaskSource> task;
  double weight = 1;
};

/// Tasks hidden in passages of books, as rows of tokens. Not for several threads.
class TaskRows {
 public:
  /// books and tokenizer must outlive this. Throws Error (usage) for weights of kinds that are not above 0.
  TaskRows(const TokenStore& books, const Tokenizer& tokenizer, std::vector<TaskKind> kinds, TaskWeights weights);

  bool empty() const { return kinds_.empty(); }
  /// Adds a row of batch.length tokens: one task, and EOS to the row's end, which has no weight. A kind whose
  /// shortest text is longer leaves the row to another. Throws Error if none fits.
  void add(eval::Rng& rng, Batch& batch) const;
  /// A passage of some book, of about `bytes` bytes or all of it.
  std::string prose(eval::Rng& rng, int64_t bytes) const;

 private:
  const TaskSource& draw_kind(eval::Rng& rng) const;
  WeightedIds fitting(const TaskSource& kind, eval::Rng& rng, int64_t length) const;

  const TokenStore& books_;
  const Tokenizer& tokenizer_;
  std::vector<TaskKind> kinds_;
  TaskWeights weights_;
  double bytes_per_token_ = 0;  // of the books, about
};

/// Batches of nothing but tasks of one length.
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
