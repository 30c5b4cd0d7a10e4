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

using SampleMethod = std::unique_ptr<SampleStep>(const Values&);
/// The `--sample` methods.
const MethodTable<SampleMethod>& sample_methods();

MethodInfo greedy_info();
std::unique_ptr<SampleStep> make_greedy(const Values& values);
MethodInfo temperature_info();
std::unique_ptr<SampleStep> make_temperature(const Values& values);
MethodInfo top_k_info();
std::unique_ptr<SampleStep> make_top_k(const Values& values);
MethodInfo top_p_info();
std::unique_ptr<SampleStep> make_top_p(const Values& values);
MethodInfo min_p_info();
std::unique_ptr<SampleStep> make_min_p(const Values& values);
MethodInfo typical_info();
std::unique_ptr<SampleStep> make_typical(const Values& values);
MethodInfo repetition_info();
std::unique_ptr<SampleStep> make_repetition(const Values& values);
MethodInfo presence_info();
std::unique_ptr<SampleStep> make_presence(const Values& values);
MethodInfo frequency_info();
std::unique_ptr<SampleStep> make_frequency(const Values& values);

}  // namespace fathom
