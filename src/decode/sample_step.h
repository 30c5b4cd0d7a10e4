#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/registry.h"
#include "decode/candidates.h"

namespace fathom {

/// One step on the way from logits to a distribution. Stateless and thread-safe: what depends on earlier tokens is
/// computed from them, so that going back costs nothing.
class SampleStep {
 public:
  virtual ~SampleStep() = default;
  /// history: all tokens before the one to be chosen, prompt included.
  virtual void apply(Candidates& candidates, std::span<const int32_t> history) const = 0;
  /// Whether asking for this step asks for a random choice; a chain without such a step takes the best token.
  virtual bool draws() const { return true; }
};

}  // namespace fathom
