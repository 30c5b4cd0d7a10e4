#include "decode/sampler.h"

#include <bit>
#include <cmath>
#include <limits>
#include <numbers>

#include "base/spec.h"
#include "decode/methods.h"
#include "decode/random.h"

namespace fathom {
namespace {

double gumbel(uint64_t bits) { return -std::log(-std::log(uniform_from(bits))); }

/// Returns an upper bound of gumbel(bits) without computing logarithms: n leading ones mean u < 1 − 2^−(n+1), so
/// −log u > 2^−(n+1).
double gumbel_bound(uint64_t bits) { return (std::countl_one(bits) + 1) * std::numbers::ln2; }

}  // namespace

int32_t draw(const Candidates& candidates, uint64_t seed, int64_t position) {
  double best = -std::numeric_limits<double>::infinity();
  int32_t chosen = candidates.all().front().id;
  for (const Candidate& candidate : candidates.all()) {
    const uint64_t bits = random_bits(seed, RandomStream::kToken, position, static_cast<uint64_t>(candidate.id));
    if (candidate.logit + gumbel_bound(bits) < best) continue;
    const double perturbed = candidate.logit + gumbel(bits);
    if (perturbed > best || (perturbed == best && candidate.id < chosen)) {
      best = perturbed;
      chosen = candidate.id;
    }
  }
  return chosen;
}

Sampler::Sampler(std::span<const std::string> steps, uint64_t seed) : seed_(seed) {
  for (const std::string& step : steps) {
    steps_.push_back(sample_methods().make(step));
    greedy_ &= !steps_.back()->draws();
  }
  if (greedy_) steps_.push_back(sample_methods().make("greedy"));
}

const Candidates& Sampler::distribution(std::span<const float> logits, std::span<const int32_t> history) {
  candidates_.assign(logits);
  for (const auto& step : steps_) step->apply(candidates_, history);
  return candidates_;
}

int32_t Sampler::sample(std::span<const float> logits, std::span<const int32_t> history, int64_t position) {
  return draw(distribution(logits, history), seed_, position);
}

}  // namespace fathom
