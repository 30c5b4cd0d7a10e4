#pragma once

#include <cstdint>
#include <vector>

#include "train/batch.h"
#include "train/decomposition.h"
#include "train/task_rows.h"

namespace fathom::train {

struct MixtureOptions {
  double task_share = 0;  // of the tokens, rounded to whole rows of the longest length
  TaskWeights weights{};
};

/// Books, and tasks hidden in passages of them, in rows of one length a step; each row is a text of its own that
/// begins with BOS. Everything is a function of what it is made of and the number of the step.
class Mixture final : public BatchSource {
 public:
  /// books and tokenizer must outlive this. decomposition.batch_tokens: of books and tasks together. Throws Error
  /// (usage) for options out of range and a vocabulary without BOS, EOS, or not that of the books.
  Mixture(const TokenStore& books, const Tokenizer& tokenizer, std::vector<TaskKind> kinds,
          DecompositionOptions decomposition, const MixtureOptions& options);

  /// Steps in which the books are read once.
  int64_t steps_per_epoch() const { return decomposition_.steps_per_epoch(); }
  /// Books first, then tasks. Throws Error for a task that does not fit into the rows. Not for several threads.
  Batch batch(int64_t step) override;

 private:
  void add_book(const TokenPiece& piece, Batch& batch) const;

  const TokenStore& books_;
  int32_t bos_;
  int64_t task_tokens_;  // of each batch
  TaskRows tasks_;
  Decomposition decomposition_;
};

}  // namespace fathom::train
