#include "decode/methods.h"

namespace fathom {
namespace {

void keep_best(Candidates& candidates) {
  candidates.best(1);
  candidates.keep_first(1);
}

class Greedy final : public SampleStep {
 public:
  void apply(Candidates& candidates, std::span<const int32_t>) const override { keep_best(candidates); }
  bool draws() const override { return false; }
};

/// Divides logits by t after subtracting the largest one, so that a very low temperature does not overflow.
class Temperature final : public SampleStep {
 public:
  explicit Temperature(double t) : t_(t) {}
  void apply(Candidates& candidates, std::span<const int32_t>) const override {
    if (t_ == 0) return keep_best(candidates);
    const double max = candidates.max_logit();
    for (Candidate& candidate : candidates.all())
      candidate.logit = static_cast<float>((candidate.logit - max) / t_);
  }
  bool draws() const override { return t_ > 0; }

 private:
  double t_;
};

}  // namespace

SampleEntry greedy_method() {
  return {{"",
           "greedy",
           "always the most likely token; ties go to the lowest id",
           "",
           true,
           "any model",
           "O(v)",
           "none",
           {}},
          [](const Values&) { return std::make_unique<Greedy>(); }};
}

SampleEntry temperature_method() {
  return {{"",
           "temperature",
           "divides the logits by t: below 1 is more predictable, above 1 more varied",
           "",
           false,
           "any model",
           "O(v)",
           "none",
           {{"t",
             Parameter::Type::kFloat,
             "0.8",
             "temperature; more is more varied; 0 takes the most likely token",
             0,
             100,
             {}}}},
          [](const Values& values) { return std::make_unique<Temperature>(values.number("t")); }};
}

}  // namespace fathom
