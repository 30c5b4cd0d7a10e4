#pragma once

#include <cstdint>
#include <vector>

#include "tokens/tokenizer.h"
#include "train/decomposition.h"
#include "train/token_store.h"
#include "train/training_tasks.h"

namespace fathom {

/// What one step trains on. A row is a text of its own: its first input is BOS, target i is what follows input i.
struct TrainingBatch {
  int64_t rows = 0, length = 0;
  std::vector<int32_t> inputs, targets;  // [rows, length]
  std::vector<float> weights;            // [rows, length], of the targets in the loss; 0 for padding
};

struct MixtureOptions {
  double task_share = 0;     // of the tokens, rounded to whole rows of the longest length
  double answer_weight = 1;  // of a task's answers in the loss; a token of a book has 1
  double rest_weight = 0.1;  // of what else a task says: much of it is random
};

/// Books, and tasks hidden in passages of them, in rows of one length a step. Everything is a function of what it
/// is made of and the number of the step.
class Mixture {
 public:
  struct Source {
    std::shared_ptr<const TaskSource> task;
    double weight = 1;
  };
  /// books and tokenizer must outlive this. decomposition.batch_tokens: of books and tasks together. Throws Error
  /// (usage) for options out of range and a vocabulary without BOS, EOS, or not that of the books.
  Mixture(const TokenStore& books, const Tokenizer& tokenizer, std::vector<Source> sources,
          DecompositionOptions decomposition, const MixtureOptions& options);

  /// Steps in which the books are read once.
  int64_t steps_per_epoch() const { return decomposition_.steps_per_epoch(); }
  /// Books first, then tasks. Throws Error for a task that does not fit into the rows. Not for several threads.
  TrainingBatch batch(int64_t step);
  /// A passage of some book, of about `bytes` bytes or all of it.
  std::string prose(Dice& dice, int64_t bytes) const;

 private:
  void add_book(const TokenPiece& piece, TrainingBatch& batch) const;
  void add_task(Dice& dice, TrainingBatch& batch) const;
  const TaskSource& draw_source(Dice& dice) const;

  const TokenStore& books_;
  const Tokenizer& tokenizer_;
  std::vector<Source> sources_;
  MixtureOptions options_;
  int64_t task_tokens_;  // of each batch
  Decomposition decomposition_;
  double bytes_per_token_ = 0;  // of the books, about
};

/// The ids of a task's text with EOS behind it, and the weight of each in the loss.
struct WeightedIds {
  std::vector<int32_t> ids;
  std::vector<float> weights;
};
WeightedIds weighted_ids(const Tokenizer& tokenizer, const MarkedText& text, const MixtureOptions& options);

}  // namespace fathom
