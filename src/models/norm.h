#pragma once

#include <vector>

#include "mixers/mixer.h"

namespace fathom {

/// RMS norm, or LayerNorm when there is a bias.
struct Norm {
  std::vector<float> weight;  // [width]; empty: no norm
  std::vector<float> bias;    // empty: RMS norm
  float eps = 0;

  bool empty() const { return weight.empty(); }
  /// out row i = norm(x row i); x, out: [rows, width]. out may be x.
  void apply(Workspace& work, const float* x, int64_t rows, float* out) const;
};

}  // namespace fathom
