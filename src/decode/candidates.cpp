#include "decode/candidates.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace fathom {
namespace {

bool better(const Candidate& a, const Candidate& b) { return a.logit != b.logit ? a.logit > b.logit : a.id < b.id; }

}  // namespace

void Candidates::assign(std::span<const float> logits) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  all_.resize(logits.size());
  bool possible = false;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] < kInfinity)) {
      fail(
          "the logit of token ", i, " is ", logits[i],
          ", expected a finite number or -inf: the arithmetic of the model overflowed, or its weights are damaged");
    }
    possible |= logits[i] > -kInfinity;
    all_[i] = {static_cast<int32_t>(i), logits[i]};
  }
  if (!possible) fail("no token can be sampled: all ", logits.size(), " logits are -inf");
}

Candidate* Candidates::find(int32_t id) {
  if (id >= 0 && id < std::ssize(all_) && all_[id].id == id) return &all_[id];  // nothing was removed or reordered
  const auto found = std::ranges::find(all_, id, &Candidate::id);
  return found == all_.end() ? nullptr : &*found;
}

std::span<const Candidate> Candidates::best(size_t n) {
  n = std::min(n, all_.size());
  if (n == 1) {
    std::iter_swap(all_.begin(), std::min_element(all_.begin(), all_.end(), better));
  } else {
    std::nth_element(all_.begin(), all_.begin() + n, all_.end(), better);
    std::sort(all_.begin(), all_.begin() + n, better);
  }
  return std::span(all_).first(n);
}

float Candidates::max_logit() const {
  float max = -std::numeric_limits<float>::infinity();
  for (const Candidate& candidate : all_) max = std::max(max, candidate.logit);
  return max;
}

double Candidates::log_sum() const {
  const double max = max_logit();
  double sum = 0;
  for (const Candidate& candidate : all_) sum += std::exp(candidate.logit - max);
  return max + std::log(sum);
}

void Candidates::keep_first(size_t n) { all_.resize(std::clamp<size_t>(n, 1, all_.size())); }

void Candidates::keep_above(double logit) {
  const double least = std::min<double>(logit, max_logit());
  std::erase_if(all_, [&](const Candidate& candidate) { return candidate.logit < least; });
}

}  // namespace fathom
