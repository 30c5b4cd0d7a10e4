#pragma once

#include <cstdint>
#include <vector>

#include "train/batch.h"
#include "train/decomposition.h"
#include "train/task_rows.h"

namespace fathom::train {

struct MixtureOptions {
  double task_share = 0;  // share of the tokens, rounded to whole rows of the longest length
  TaskWeights weights{};
};

/// Batches of pieces of books and of tasks hidden in passages of books. A batch has rows of one length; each row is
/// a separate text that begins with BOS. A batch depends only on the constructor's arguments and the step.
class Mixture final : public BatchSource {
 public:
  /// books and tokenizer must outlive this. decomposition.batch_tokens: tokens of books and tasks together. Throws
  /// Error (usage) for options out of range, for a vocabulary without BOS or EOS, and if its size differs from the
  /// vocabulary size of the books.
  Mixture(const TokenStore& books, const Tokenizer& tokenizer, std::vector<TaskKind> kinds,
          DecompositionOptions decomposition, const MixtureOptions& options);

  /// Returns the number of steps that use all books once.
  int64_t steps_per_epoch() const { return decomposition_.steps_per_epoch(); }
  /// Returns the batch of a step: rows of books, then rows of tasks. Throws Error if no task fits into a row. Not
  /// thread-safe.
  Batch batch(int64_t step) override;

 private:
  void add_book(const TokenPiece& piece, Batch& batch) const;

  const TokenStore& books_;
  int32_t bos_;
  int64_t task_tokens_;  // tokens of tasks in each batch
  TaskRows tasks_;
  Decomposition decomposition_;
};

}  // namespace fathom::train
