#pragma once

#include <vector>

#include "mixers/mixer.h"

namespace fathom {

/// An RMS norm, or a LayerNorm if it has a bias.
struct Norm {
  std::vector<float> weight;  // [width]; empty: no norm
  std::vector<float> bias;    // empty: RMS norm
  float eps = 0;

  bool empty() const { return weight.empty(); }
  /// Writes the norm of each row of x to out; both [rows, width]. out may be x.
  void apply(Workspace& work, const float* x, int64_t rows, float* out) const;
};

}  // namespace fathom
