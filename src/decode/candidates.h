#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace fathom {

struct Candidate {
  int32_t id;
  float logit;
};

/// The tokens that may come next, with their logits: what the steps of sampling change. Never empty once assigned.
class Candidates {
 public:
  /// All tokens of the vocabulary, in order of their ids. Throws Error if a logit is not a number or infinitely
  /// large, or if all are −∞.
  void assign(std::span<const float> logits);

  std::span<Candidate> all() { return all_; }
  std::span<const Candidate> all() const { return all_; }
  size_t size() const { return all_.size(); }

  /// Moves the best n (all if there are fewer) to the front, the best first, of equals the lowest id first.
  std::span<const Candidate> best(size_t n);
  float max_logit() const;
  /// Natural logarithm of Σ exp(logit): the log-probability of a candidate is its logit less this.
  double log_sum() const;

  /// Keeps the first n (at least one) and drops the rest.
  void keep_first(size_t n);
  /// Keeps those of at least this logit; the best always stays.
  void keep_above(double logit);

 private:
  std::vector<Candidate> all_;
};

}  // namespace fathom
