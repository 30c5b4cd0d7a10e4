#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "attend/methods.h"
#include "attend/reading.h"
#include "evict/methods.h"

namespace fathom::test {

/// A Reading with an evictor.
class Evicting : public Reading {
 public:
  Evicting(const ReadingShape& s, const std::string& spec, const OutputNorms& norms = {})
      : Reading(s, "dense"), evictor(evict_methods().make(spec)) {
    AttendContext model = context();
    model.output_norms = norms;
    evictor->attach(model);
    sequence.set_state(Sequence::StateOf::kEvictor, evictor->new_state());
    listen = [this](LayerQueries layer) {
      layer.state = sequence.state(Sequence::StateOf::kEvictor);
      evictor->listen(layer, *pool);
    };
  }

  void evict(bool end) { evictor->evict(sequence, end, {*pool, kernels()}); }

  /// Returns the kept tokens of a head by the index at which they were read.
  std::vector<int64_t> kept_tokens(int kv_head) const {
    std::vector<int64_t> tokens;
    for (const PageEntry& entry : sequence.kv(0).table(kv_head)) {
      for (int t = 0; t < entry.filled; ++t)
        if (entry.mask >> t & 1)
          tokens.push_back(sequence.kv(0).compacted(kv_head).original_index(entry.first + t));
    }
    return tokens;
  }

  std::unique_ptr<Evictor> evictor;
};

/// Returns the indices of the k largest scores, ascending.
inline std::vector<int64_t> largest(const std::vector<double>& scores, int64_t k) {
  std::vector<int64_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, std::greater(), [&](int64_t i) { return scores[i]; });
  order.resize(k);
  std::ranges::sort(order);
  return order;
}

/// Returns the mean attention of rows [begin, end) and query heads [first, first + count) to each token: [end].
inline std::vector<double> attention(Reading& reading, int64_t begin, int64_t end, int first, int count) {
  std::vector<double> mean(end);
  for (int64_t row = begin; row < end; ++row) {
    for (int h = first; h < first + count; ++h) {
      std::vector<double> own = reading.scores(row, h, 0, row + 1);
      Reading::softmax(own);
      for (int64_t t = 0; t <= row; ++t) mean[t] += own[t] / static_cast<double>(count * (end - begin));
    }
  }
  return mean;
}

}  // namespace fathom::test
