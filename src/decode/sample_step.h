#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/registry.h"
#include "decode/candidates.h"

namespace fathom {

/// One step from logits to the sampled distribution. Stateless and thread-safe: values that depend on earlier
/// tokens are computed from the history, so a rewind needs no update.
class SampleStep {
 public:
  virtual ~SampleStep() = default;
  /// Modifies `candidates`. history: all tokens before the one to be sampled, prompt included.
  virtual void apply(Candidates& candidates, std::span<const int32_t> history) const = 0;
  /// Returns whether this step implies random sampling. A chain without such a step takes the best token.
  virtual bool draws() const { return true; }
};

}  // namespace fathom
