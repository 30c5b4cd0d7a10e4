#include <algorithm>
#include <cmath>
#include <limits>

#include "decode/methods.h"

namespace fathom {
namespace {

/// Keeps the tokens whose surprisal −log p is nearest to the entropy: the fewest that reach probability p.
class Typical final : public SampleStep {
 public:
  explicit Typical(double p) : p_(p) {}

  void apply(Candidates& candidates, std::span<const int32_t>) const override {
    if (p_ >= 1) return;
    const double log_sum = candidates.log_sum();
    double entropy = 0;
    for (const Candidate& candidate : candidates.all()) {
      const double log_p = candidate.logit - log_sum;
      if (std::isfinite(log_p)) entropy -= std::exp(log_p) * log_p;
    }
    const auto distance = [&](const Candidate& c) { return std::abs(log_sum - c.logit - entropy); };
    std::ranges::sort(candidates.all(), [&](const Candidate& a, const Candidate& b) {
      const double da = distance(a), db = distance(b);
      return da != db ? da < db : a.id < b.id;
    });
    double mass = 0;
    size_t count = 0;
    while (count < candidates.size() && mass < p_) mass += std::exp(candidates.all()[count++].logit - log_sum);
    candidates.keep_first(count);
  }

 private:
  double p_;
};

}  // namespace

SampleEntry typical_method() {
  return {{"",
           "typical",
           "tokens whose surprisal is closest to the average (the entropy), with total probability p",
           "Locally Typical Sampling, 2022",
           false,
           "any model",
           "O(v log v)",
           "none",
           {{"p",
             Parameter::Type::kFloat,
             "0.95",
             "total probability kept; more is more varied; 1 keeps all",
             0,
             1,
             {}}}},
          [](const Values& values) { return std::make_unique<Typical>(values.number("p")); }};
}

}  // namespace fathom
