#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace fathom {

struct FmIndexOptions {
  /// Every position of the text that is a multiple of this is stored, in 32 bits. `locate` takes on average
  /// (sample_rate − 1) / 2 steps per occurrence. At least 1.
  int sample_rate = 8;
  /// The longest text to index, in tokens and ends of passages. Bounds the memory. At most 2^31 − 2.
  int64_t max_length = INT32_MAX - 1;
};

/// A full-text index of passages of tokens. Finds the n-grams of the passages and the tokens that follow them in
/// time that does not depend on the length of the text: an FM-index over the reversed text, so that a
/// backward-search step appends a token. N-grams do not cross the end of a passage. Immutable and thread-safe.
///
/// Memory: with σ distinct tokens, 1.13 · (⌈log2(σ + 2)⌉ + 1) + 32 / sample_rate bits per position and 8 bytes per
/// distinct token, whatever the token ids are.
/// Source: Bevilacqua et al., 2022 (SEAL); Ferragina and Manzini, 2000; wavelet matrix: Claude and Navarro, 2012.
class FmIndex {
 public:
  /// The rows of the index that hold the occurrences of an n-gram.
  struct Range {
    int64_t begin = 0, end = 0;
    /// Number of occurrences; of the empty n-gram: of positions, ends of passages included.
    int64_t count() const { return end - begin; }
  };
  struct Successor {
    int32_t token = 0;
    Range range;  // of the n-gram with this token appended
  };
  /// Where an n-gram occurs. A text is the passages in order, each followed by one position without a token.
  struct Occurrence {
    int64_t passage = 0;
    int64_t begin = 0;  // of its first token in the passage
  };

  /// Builds the index in time linear in the length of the text, apart from sorting the token ids. Needs about 8
  /// bytes per position in addition to the index. Passages may be empty. Throws Error for ids below 0, texts longer
  /// than `max_length` and a `sample_rate` below 1.
  explicit FmIndex(std::span<const std::vector<int32_t>> passages, const FmIndexOptions& options = {});
  ~FmIndex();
  FmIndex(FmIndex&&) noexcept;
  FmIndex& operator=(FmIndex&&) noexcept;

  /// Number of tokens of all passages.
  int64_t tokens() const { return tokens_; }
  int64_t passages() const { return static_cast<int64_t>(begin_.size()); }

  /// Returns the range of the empty n-gram.
  Range all() const { return {0, rows_}; }
  /// Returns the range of an n-gram with `token`, which may be any number, appended; empty if it does not occur.
  /// O(log σ).
  Range append(Range range, int32_t token) const;
  /// Returns the range of an n-gram.
  Range find(std::span<const int32_t> ngram) const;
  /// Returns the tokens that follow the n-gram within passages, ascending. O(log σ) per returned token.
  std::vector<Successor> successors(Range range) const;
  /// Returns the occurrences of an n-gram of this many tokens, at least 1, in any order.
  std::vector<Occurrence> locate(Range range, int64_t length) const;

 private:
  struct Arrays;
  std::unique_ptr<const Arrays> arrays_;  // null: no passages
  int64_t rows_ = 0;                      // positions of the text, and one for its end
  int64_t tokens_ = 0;
  std::vector<int64_t> begin_;  // of each passage in the text
};

}  // namespace fathom
