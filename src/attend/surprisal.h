#pragma once

#include <cstdint>
#include <span>

namespace fathom {

/// The surprisal of consecutive tokens: −ln of the probability that the model predicted for each, in nats.
struct Surprisal {
  int64_t first = 0;            // sequence index of the first token
  std::span<const float> nats;  // NaN for a token without a prediction: the first of a sequence, or after a rewind
};

}  // namespace fathom
