#include "decode/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
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
  return draw_best(candidates, seed, position, 1)[0].id;
}

std::vector<Candidate> draw_best(const Candidates& candidates, uint64_t seed, int64_t position, size_t n) {
  struct Drawn {
    Candidate candidate;
    double perturbed;
    bool operator<(const Drawn& other) const {  // in the order of the result
      return perturbed != other.perturbed ? perturbed > other.perturbed : candidate.id < other.candidate.id;
    }
  };
  std::vector<Drawn> best;  // sorted
  for (const Candidate& candidate : candidates.all()) {
    const uint64_t bits = random_bits(seed, RandomStream::kToken, position, static_cast<uint64_t>(candidate.id));
    const bool full = best.size() == n;
    if (full && candidate.logit + gumbel_bound(bits) < best.back().perturbed) continue;
    const Drawn drawn{candidate, candidate.logit + gumbel(bits)};
    if (full && !(drawn < best.back())) continue;
    if (full) best.pop_back();
    best.insert(std::ranges::upper_bound(best, drawn, std::less()), drawn);
  }
  std::vector<Candidate> result;
  for (const Drawn& drawn : best) result.push_back(drawn.candidate);
  return result;
}

Sampler::Sampler(std::span<const std::string> steps, uint64_t seed) : seed_(seed) {
  for (const std::string& step : steps) {
    steps_.push_back(sample_methods().make(step));
    greedy_ &= !steps_.back()->draws();
  }
  if (greedy_) steps_.push_back(sample_methods().make("greedy"));
}

void Sampler::constrain(std::shared_ptr<const Constraint> constraint, int64_t prompt_tokens) {
  constraint_.reset();
  if (constraint) constraint_.emplace(std::move(constraint), prompt_tokens);
}

const Candidates& Sampler::distribution(std::span<const float> logits, std::span<const int32_t> history) {
  candidates_.assign(logits);
  if (constraint_) constraint_->restrict(candidates_, history);
  for (const auto& step : steps_) step->apply(candidates_, history);
  return candidates_;
}

int32_t Sampler::sample(std::span<const float> logits, std::span<const int32_t> history, int64_t position) {
  if (plain()) {  // the same token as below, without a copy of all logits
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    int32_t best = 0;
    bool valid = true;
    for (int32_t id = 0; id < std::ssize(logits); ++id) {
      valid &= logits[id] < kInfinity;
      if (logits[id] > logits[best]) best = id;
    }
    if (valid && !logits.empty() && logits[best] > -kInfinity) return best;
  }
  return draw(distribution(logits, history), seed_, position);
}

}  // namespace fathom
