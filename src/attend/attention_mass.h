#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

#include "attend/attention.h"

namespace fathom {

/// Sums the attention probabilities that each token gets from the queries of one sequence, by layer and key/value
/// head. Set it as a session's watcher. The sums do not depend on the number of threads.
class AttentionMass final : public AttentionWatcher {
 public:
  /// layers: for each layer, whether it is observed. first_row: sequence index of the first query that is counted.
  AttentionMass(std::vector<char> layers, int kv_heads, int64_t first_row);

  bool watches(int layer) const override { return layers_[layer]; }
  void observe(const AttendedBlock& attended) override;

  /// Returns [tokens]: the probability of each token, summed over the counted queries of all query heads of this
  /// key/value head. The probabilities of one query sum to 1.
  std::vector<double> mass(int layer, int kv_head, int64_t tokens) const;
  /// Returns [tokens]: whether the token was visible to at least one counted query.
  std::vector<char> visible_tokens(int layer, int kv_head, int64_t tokens) const;
  /// Returns the number of counted queries of a layer; each query head counts separately.
  int64_t queries(int layer) const;

 private:
  struct Sums {
    std::vector<int64_t> mass;  // [token], in units of 2^-40
    std::vector<char> visible;
    int64_t queries = 0;
    void grow(int64_t tokens);
  };
  const Sums& sums(int layer, int kv_head) const { return sums_[static_cast<size_t>(layer) * kv_heads_ + kv_head]; }

  std::vector<char> layers_;
  int kv_heads_;
  int64_t first_row_;
  std::vector<Sums> sums_;  // [layers, kv_heads]
  std::mutex mutex_;
};

}  // namespace fathom
