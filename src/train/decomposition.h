#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace fathom::eval {
class Rng;
}

namespace fathom::train {

/// Tokens [begin, begin + 2^level) of a document.
struct TokenPiece {
  int32_t document = 0;
  int32_t level = 0;
  int64_t begin = 0;
  int64_t length() const { return int64_t{1} << level; }
  bool operator==(const TokenPiece&) const = default;
};

/// The order of lengths within a cycle. kUniform draws the next batch uniformly from the remaining ones. kGrow
/// draws a batch of half the length with twice the probability, so that a cycle begins with short and ends with
/// long lengths ("power-of-two grow").
enum class Curriculum { kUniform, kGrow };

struct DecompositionOptions {
  int32_t min_level = 8, max_level = 13;  // lengths 2^min_level to 2^max_level
  int64_t batch_tokens = 0;               // tokens of a batch; a multiple of 2^max_level
  int32_t cycles = 8;                     // cycles of an epoch; each has the same share of every length
  Curriculum curriculum = Curriculum::kGrow;
  /// Cuts long documents so that every length gets about the same number of tokens. Otherwise a long document gives
  /// the longest pieces and at most one piece of each shorter length.
  bool spread = false;
  uint64_t seed = 0;
};

/// Pieces of one length with batch_tokens tokens in total.
struct PieceBatch {
  int32_t level = 0;
  std::vector<TokenPiece> pieces;
};

/// Cuts documents into pieces whose lengths are powers of two, by the binary expansion of the document's length,
/// and orders batches of pieces of one length (Dataset Decomposition: Faster LLM Training with Variable Sequence
/// Length Curriculum, 2024). A batch depends only on the lengths, the options and the step.
class Decomposition {
 public:
  /// lengths: tokens of each document. Throws Error (usage) for contradictory options and if there are too few
  /// tokens for a batch.
  Decomposition(std::span<const int64_t> lengths, const DecompositionOptions& options);

  const DecompositionOptions& options() const { return options_; }
  /// Returns all pieces of a level, in the order of documents. The last tokens of a document, fewer than
  /// 2^min_level, are in no piece.
  const std::vector<TokenPiece>& pieces(int32_t level) const { return buckets_[level - options_.min_level]; }
  /// Returns the number of batches of an epoch. An epoch has every piece once, except for pieces left over after
  /// the last full batch of their length; these differ between epochs.
  int64_t steps_per_epoch() const { return steps_per_epoch_; }
  /// Returns the batch of a step ≥ 0. Fastest for steps in order. Not thread-safe.
  PieceBatch batch(int64_t step);

 private:
  struct BatchIndex {
    int32_t level = 0;
    int64_t number = 0;  // among the epoch's batches of this level
  };
  int64_t pieces_per_batch(int32_t level) const { return options_.batch_tokens >> level; }
  int64_t batches(int32_t level) const;
  void plan(int64_t epoch);
  void plan_cycle(int32_t cycle, eval::Rng& rng);

  DecompositionOptions options_;
  std::vector<std::vector<TokenPiece>> buckets_;  // by level, from min_level
  int64_t steps_per_epoch_ = 0;

  int64_t epoch_ = -1;                          // the epoch that order_ and shuffled_ belong to
  std::vector<BatchIndex> order_;               // the batches of the epoch, in order
  std::vector<std::vector<int64_t>> shuffled_;  // for each bucket, the order of its pieces in the epoch
};

}  // namespace fathom::train
