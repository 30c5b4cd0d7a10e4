#include "decode/retrieve.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "decode/constrained_beam.h"
#include "decode/constraints/corpus.h"

namespace fathom {
namespace {

// Constants of the paper's code.
constexpr double kSmoothing = 5;           // added to counts
constexpr double kNewTokenShare = 0.8;     // of a weight that depends on the share of tokens without a match before
constexpr double kLeastSurprisal = 1e-10;  // keeps log(1 − p) finite for p = 1

/// The score of one passage. Each of its positions counts for one n-gram.
class PassageScore {
 public:
  /// Adds an n-gram at a position. Returns false, changing nothing, if another n-gram covers part of it.
  bool add(size_t ngram, const QueryNgram& matched, int64_t begin) {
    const int64_t end = begin + std::ssize(matched.tokens);
    const auto covered = positions_.lower_bound(begin);
    if (covered != positions_.end() && *covered < end) return false;
    for (int64_t position = begin; position < end; ++position) positions_.insert(position);
    const std::set<int32_t> distinct(matched.tokens.begin(), matched.tokens.end());
    int64_t fresh = 0;
    for (const int32_t token : distinct) fresh += tokens_.insert(token).second ? 1 : 0;
    score_ += matched.weight * (1 - kNewTokenShare +
                                kNewTokenShare * static_cast<double>(fresh) / static_cast<double>(distinct.size()));
    ngrams_.push_back(ngram);
    return true;
  }
  double score() const { return score_; }
  /// Returns whether the n-gram was the last one that was added.
  bool ends_with(size_t ngram) const { return !ngrams_.empty() && ngrams_.back() == ngram; }
  std::vector<size_t> take_ngrams() { return std::move(ngrams_); }

 private:
  double score_ = 0;
  std::set<int64_t> positions_;  // covered
  std::set<int32_t> tokens_;     // of the n-grams
  std::vector<size_t> ngrams_;
};

/// Returns the score of a passage by all n-grams; each counts once.
PassageScore full_score(const std::vector<int32_t>& passage, const std::vector<QueryNgram>& ngrams) {
  PassageScore score;
  for (size_t i = 0; i < ngrams.size(); ++i) {
    const std::vector<int32_t>& tokens = ngrams[i].tokens;
    for (auto at = passage.begin();; ++at) {
      at = std::search(at, passage.end(), tokens.begin(), tokens.end());
      if (at == passage.end() || score.add(i, ngrams[i], at - passage.begin())) break;
    }
  }
  return score;
}

/// Moves the best `count` passages to the front and removes the others.
void keep_best(std::vector<RankedPassage>& passages, int count) {
  std::ranges::sort(passages, [](const RankedPassage& a, const RankedPassage& b) {
    return std::tuple(-a.score, a.passage) < std::tuple(-b.score, b.passage);
  });
  if (std::cmp_greater(passages.size(), count)) passages.resize(static_cast<size_t>(count));
}

}  // namespace

double ngram_weight(double log_probability, int64_t count, int64_t tokens) {
  const double s = std::min(log_probability, 0.0) - kLeastSurprisal;
  const double t = std::log((static_cast<double>(count) + kSmoothing) / (static_cast<double>(tokens) + kSmoothing));
  if (t >= 0) return 0;
  const double odds = s + std::log(-std::expm1(t)) - t - std::log(-std::expm1(s));
  return std::pow(std::max(0.0, odds), 2);
}

PassageRetriever::PassageRetriever(const Tokenizer& tokenizer, const std::vector<std::string_view>& passages)
    : tokenizer_(tokenizer), passages_(encode_passages(tokenizer, passages)), index_(index_passages(passages_)) {}

RetrieveResult PassageRetriever::retrieve(const Session& query, const RetrieveOptions& options) const {
  return rank(generate(query, options), options);
}

std::vector<QueryNgram> PassageRetriever::generate(const Session& query, const RetrieveOptions& options) const {
  const auto constraint = make_corpus_constraint(tokenizer_, index_, {.min = 1});
  std::map<std::vector<int32_t>, double> best;  // an n-gram can be kept as a partial and as an ended one
  const BeamOptions beam{
      .width = options.width, .length = options.length, .keep_partial = true, .progress = options.progress};
  for (const Hypothesis& text : constrained_beam(query, tokenizer_, constraint.get(), beam)) {
    if (text.tokens.empty()) continue;
    const auto [known, added] = best.emplace(text.tokens, text.log_probability);
    if (!added) known->second = std::max(known->second, text.log_probability);
  }
  std::vector<QueryNgram> ngrams;
  for (const auto& [tokens, log_probability] : best) ngrams.push_back({tokens, log_probability});
  return ngrams;
}

RetrieveResult PassageRetriever::rank(std::vector<QueryNgram> ngrams, const RetrieveOptions& options) const {
  RetrieveResult result;
  for (QueryNgram& ngram : ngrams) {
    ngram.count = ngram.tokens.empty() ? 0 : index_->find(ngram.tokens).count();
    ngram.weight = ngram.count > 0 ? ngram_weight(ngram.log_probability, ngram.count, index_->tokens()) : 0;
    if (ngram.weight > 0) result.ngrams.push_back(std::move(ngram));
  }
  std::ranges::sort(result.ngrams, [](const QueryNgram& a, const QueryNgram& b) {
    return std::tuple(-a.weight, a.tokens) < std::tuple(-b.weight, b.tokens);
  });

  std::map<int64_t, PassageScore> scores;
  for (size_t i = 0; i < result.ngrams.size(); ++i) {
    const QueryNgram& ngram = result.ngrams[i];
    if (ngram.count > options.max_count) continue;
    auto occurrences = index_->locate(index_->find(ngram.tokens), std::ssize(ngram.tokens));
    std::ranges::sort(occurrences, {},
                      [](const FmIndex::Occurrence& at) { return std::pair(at.passage, at.begin); });
    for (const FmIndex::Occurrence& at : occurrences) {
      PassageScore& score = scores[at.passage];
      if (!score.ends_with(i)) score.add(i, ngram, at.begin);
    }
  }
  for (const auto& [passage, score] : scores)
    if (score.score() > 0) result.passages.push_back({passage, score.score(), {}});
  keep_best(result.passages, options.rescored);
  for (RankedPassage& ranked : result.passages) {
    PassageScore score = full_score(passages_[static_cast<size_t>(ranked.passage)], result.ngrams);
    ranked.score = score.score();
    ranked.ngrams = score.take_ngrams();
  }
  keep_best(result.passages, options.passages);
  return result;
}

}  // namespace fathom
