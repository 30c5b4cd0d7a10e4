#include "train/mixture.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace fathom::train {
namespace {

int64_t tokens_of_tasks(const DecompositionOptions& decomposition, const MixtureOptions& options) {
  if (!(options.task_share >= 0 && options.task_share <= 1))
    fail_usage("data.tasks.share: expected 0 to 1, found ", options.task_share);
  const int64_t unit = int64_t{1} << decomposition.max_level;
  const int64_t units = decomposition.batch_tokens / unit;
  const int64_t of_tasks = std::llround(options.task_share * static_cast<double>(units));
  if (options.task_share > 0 && (of_tasks == 0 || of_tasks == units)) {
    fail_usage("batches of ", decomposition.batch_tokens, " tokens have ", units, " rows of ", unit,
               " tokens, too few for a share of tasks of ", options.task_share, "; increase batch_tokens");
  }
  return of_tasks * unit;
}

Decomposition of_books(const TokenStore& books, DecompositionOptions options, int64_t task_tokens) {
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < books.documents(); ++i) lengths.push_back(books.length(i));
  options.batch_tokens -= task_tokens;
  return Decomposition(lengths, options);
}

}  // namespace

Mixture::Mixture(const TokenStore& books, const Tokenizer& tokenizer, std::vector<TaskKind> kinds,
                 DecompositionOptions decomposition, const MixtureOptions& options)
    : books_(books),
      bos_(tokenizer.vocabulary().bos),
      task_tokens_(tokens_of_tasks(decomposition, options)),
      tasks_(books, tokenizer, std::move(kinds), options.weights),
      decomposition_(of_books(books, decomposition, task_tokens_)) {
  const Vocabulary& vocabulary = tokenizer.vocabulary();
  if (vocabulary.bos == kNoToken || vocabulary.eos == kNoToken)
    fail_usage(vocabulary.source, ": training needs a BOS and an EOS token");
  if (books.vocabulary() != vocabulary.size()) {
    fail_usage("the books were tokenized with a vocabulary of ", books.vocabulary(), " tokens, the tokenizer has ",
               vocabulary.size());
  }
  if (task_tokens_ > 0 && tasks_.empty()) fail_usage("data.tasks.share is above 0, but there are no tasks");
}

Batch Mixture::batch(int64_t step) {
  const PieceBatch pieces = decomposition_.batch(step);
  Batch batch{.sequences = 0, .length = int64_t{1} << pieces.level};
  for (const TokenPiece& piece : pieces.pieces) add_book(piece, batch);
  const int64_t rows = batch.sequences + task_tokens_ / batch.length;
  while (batch.sequences < rows) {
    eval::Rng rng(decomposition_.options().seed, "task of a row", batch.sequences, step);
    tasks_.add(rng, batch);
  }
  return batch;
}

void Mixture::add_book(const TokenPiece& piece, Batch& batch) const {
  batch.tokens.push_back(bos_);
  const size_t at = batch.tokens.size();
  batch.tokens.resize(at + piece.length());
  books_.copy(piece.document, piece.begin, std::span(batch.tokens).subspan(at));
  batch.weights.resize(batch.weights.size() + piece.length(), 1.0f);
  ++batch.sequences;
}

}  // namespace fathom::train
