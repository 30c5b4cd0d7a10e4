#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "decode/constraints/fm_index.h"
#include "session/session.h"
#include "tokens/tokenizer.h"

namespace fathom {

/// An n-gram that was generated for a query.
struct QueryNgram {
  std::vector<int32_t> tokens;
  double log_probability = 0;  // given the query
  int64_t count = 0;           // occurrences in the passages
  double weight = 0;           // ngram_weight()
};

/// A passage with the n-grams that it matched.
struct RankedPassage {
  int64_t passage = 0;  // index
  double score = 0;
  std::vector<size_t> ngrams;  // indices into RetrieveResult::ngrams, the highest weight first
};

struct RetrieveResult {
  std::vector<QueryNgram> ngrams;       // the highest weight first; weights are above 0
  std::vector<RankedPassage> passages;  // the highest score first
};

struct RetrieveOptions {
  int passages = 10;                                    // most results
  int width = 15;                                       // of the beam
  int64_t length = 10;                                  // most tokens of an n-gram
  int64_t max_count = 1500;                             // n-grams that occur more often do not select passages
  int rescored = 500;                                   // best passages that are scored by all n-grams
  std::function<void(int64_t tokens_read)> progress{};  // called now and then; may throw to stop
};

/// Returns the weight of an n-gram: how much more likely it is given the query than in the corpus, as the square of
/// the positive part of the log odds ratio. log_probability: given the query; count: in a corpus of `tokens`
/// tokens.
double ngram_weight(double log_probability, int64_t count, int64_t tokens);

/// Finds passages for a query by generating n-grams of them. Immutable and thread-safe. Source: Bevilacqua et al.,
/// 2022 (SEAL).
class PassageRetriever {
 public:
  /// The tokenizer must outlive this. Throws Error for passages without tokens, and for more than 1 GiB.
  PassageRetriever(const Tokenizer& tokenizer, const std::vector<std::string_view>& passages);

  const FmIndex& index() const { return *index_; }

  /// Returns the best passages for the query that the session has read. The session is unchanged. Throws Error (out
  /// of memory, interrupted).
  RetrieveResult retrieve(const Session& query, const RetrieveOptions& options = {}) const;

  /// Returns n-grams of the passages with their weights: those that a beam search after the query keeps at any
  /// step.
  std::vector<QueryNgram> generate(const Session& query, const RetrieveOptions& options) const;
  /// Scores passages by n-grams. Uses tokens and log_probability of each and computes the rest; ignores n-grams
  /// that do not occur or have the weight 0.
  RetrieveResult rank(std::vector<QueryNgram> ngrams, const RetrieveOptions& options) const;

 private:
  const Tokenizer& tokenizer_;
  std::vector<std::vector<int32_t>> passages_;
  std::shared_ptr<const FmIndex> index_;
};

}  // namespace fathom
