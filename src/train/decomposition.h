#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace fathom::train {

class eval::Rng;

/// Tokens [begin, begin + 2^level) of a document.
struct TokenPiece {
  int32_t document = 0;
  int32_t level = 0;
  int64_t begin = 0;
  int64_t length() const { return int64_t{1} << level; }
  bool operator==(const TokenPiece&) const = default;
};

/// In which order lengths come: kUniform draws the next batch among all that are left; kGrow makes batches half as
/// long twice as likely, so that each cycle goes from short to long ("power-of-two grow").
enum class Curriculum { kUniform, kGrow };

struct DecompositionOptions {
  int32_t least_level = 8, most_level = 13;  // lengths 2^least_level to 2^most_level
  int64_t batch_tokens = 0;                  // of each batch; a multiple of 2^most_level
  int32_t cycles = 8;                        // an epoch has so many, each with the same share of every length
  Curriculum curriculum = Curriculum::kGrow;
  /// Long documents, of which the plain method makes only the longest pieces and one each of some shorter lengths,
  /// are cut so that each length gets about the same number of tokens.
  bool spread = false;
  uint64_t seed = 0;
};

/// Pieces of one length: batch_tokens in all.
struct PieceBatch {
  int32_t level = 0;
  std::vector<TokenPiece> pieces;
};

/// Documents cut into pieces whose lengths are powers of two, by the binary expansion of their length, and the
/// order in which batches of one length each are trained on (Dataset Decomposition: Faster LLM Training with
/// Variable Sequence Length Curriculum, 2024). All is a function of the lengths, the options and the number of the
/// step.
class Decomposition {
 public:
  /// lengths: tokens of each document. Throws Error (usage) for options that contradict each other and when no
  /// batch can be filled.
  Decomposition(std::span<const int64_t> lengths, const DecompositionOptions& options);

  const DecompositionOptions& options() const { return options_; }
  /// All pieces of one level, in order of documents. Less than 2^least_level tokens of each document are in none.
  const std::vector<TokenPiece>& pieces(int32_t level) const { return buckets_[level - options_.least_level]; }
  /// Batches until all pieces have been seen once, but for those too few for a batch: other ones in each epoch.
  int64_t steps_per_epoch() const { return steps_per_epoch_; }
  /// The batch of a step ≥ 0. Steps in order are quickest. Not for several threads at once.
  PieceBatch batch(int64_t step);

 private:
  struct Place {
    int32_t level = 0;
    int64_t number = 0;  // among the epoch's batches of this level
  };
  int64_t pieces_per_batch(int32_t level) const { return options_.batch_tokens >> level; }
  int64_t batches(int32_t level) const;
  void plan(int64_t epoch);
  void plan_cycle(int32_t cycle, eval::Rng& rng);

  DecompositionOptions options_;
  std::vector<std::vector<TokenPiece>> buckets_;  // by level, from the least
  int64_t steps_per_epoch_ = 0;

  int64_t epoch_ = -1;                          // that is planned
  std::vector<Place> order_;                    // its batches
  std::vector<std::vector<int64_t>> shuffled_;  // its order of each bucket's pieces
};

}  // namespace fathom::train
