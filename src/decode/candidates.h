#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace fathom {

/// A token and its logit.
struct Candidate {
  int32_t id;
  float logit;
};

/// The tokens that can be sampled next, with their logits. Sampling steps modify them. Never empty after assign().
class Candidates {
 public:
  /// Sets all tokens of the vocabulary, in order of their ids. Throws Error if a logit is NaN or +∞, or if all
  /// logits are −∞.
  void assign(std::span<const float> logits);

  std::span<Candidate> all() {
    complete_ = false;  // the caller may change the order
    return all_;
  }
  std::span<const Candidate> all() const { return all_; }
  size_t size() const { return all_.size(); }
  /// Returns the candidate of a token; null if it was removed.
  Candidate* find(int32_t id);

  /// Moves the n best candidates (all if there are fewer) to the front and returns them, best first. Ties are
  /// ordered by id, lowest first.
  std::span<const Candidate> best(size_t n);
  float max_logit() const;
  /// Returns ln Σ exp(logit). The log-probability of a candidate is its logit minus this.
  double log_sum() const;

  /// Keeps the candidates whose bit is set and their order: bit id % 64 of words[id / 64]. Returns false, changing
  /// nothing, if there are none.
  bool keep_ids(std::span<const uint64_t> words);
  /// Keeps the first n candidates, at least one, and removes the others.
  void keep_first(size_t n);
  /// Keeps the candidates with at least this logit, and always the best one.
  void keep_above(double logit);

 private:
  std::vector<Candidate> all_;
  bool complete_ = false;  // whether all_ holds the whole vocabulary, by id
};

}  // namespace fathom
