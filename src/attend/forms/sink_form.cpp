#include "attend/forms/sink_form.h"

#include <algorithm>
#include <cmath>

namespace fathom {

void SinkForm::finish(int head, int value_dim, float* out, float& lse) const {
  const float sink = sinks_[head];
  const float share = 1 / (1 + std::exp(sink - lse));  // 0 where lse is −infinity
  for (int d = 0; d < value_dim; ++d) out[d] *= share;
  const float most = std::max(lse, sink);
  lse = most + std::log(std::exp(lse - most) + std::exp(sink - most));
}

}  // namespace fathom
