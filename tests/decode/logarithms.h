#pragma once

#include <cmath>
#include <vector>

namespace fathom::test {

/// Returns the natural logarithms of probabilities, as logits.
inline std::vector<float> log_of(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

}  // namespace fathom::test
