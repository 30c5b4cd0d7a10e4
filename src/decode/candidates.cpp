#include "decode/candidates.h"

#include <algorithm>
#include <bit>
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
  complete_ = true;
  if (!possible) fail("no token can be sampled: all ", logits.size(), " logits are -inf");
}

bool Candidates::keep_ids(std::span<const uint64_t> words) {
  size_t kept = 0;
  if (complete_) {
    for (size_t word = 0; word < words.size(); ++word) {
      for (uint64_t bits = words[word]; bits != 0; bits &= bits - 1) {
        const size_t id = word * 64 + static_cast<size_t>(std::countr_zero(bits));
        if (id < all_.size()) all_[kept++] = all_[id];
      }
    }
  } else {
    const auto has = [&](int32_t id) {
      const auto word = static_cast<size_t>(id) / 64;
      return word < words.size() && (words[word] >> id % 64 & 1) != 0;
    };
    for (const Candidate& candidate : all_)
      if (has(candidate.id)) all_[kept++] = candidate;
  }
  if (kept == 0) return false;
  complete_ = complete_ && kept == all_.size();
  all_.resize(kept);
  return true;
}

Candidate* Candidates::find(int32_t id) {
  if (id >= 0 && id < std::ssize(all_) && all_[id].id == id) return &all_[id];  // nothing was removed or reordered
  const auto found = std::ranges::find(all_, id, &Candidate::id);
  return found == all_.end() ? nullptr : &*found;
}

std::span<const Candidate> Candidates::best(size_t n) {
  n = std::min(n, all_.size());
  complete_ = false;
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

void Candidates::keep_first(size_t n) {
  all_.resize(std::clamp<size_t>(n, 1, all_.size()));
  complete_ = false;
}

void Candidates::keep_above(double logit) {
  const double least = std::min<double>(logit, max_logit());
  complete_ = false;
  std::erase_if(all_, [&](const Candidate& candidate) { return candidate.logit < least; });
}

}  // namespace fathom
