#include <cmath>

#include "decode/methods.h"

namespace fathom {
namespace {

class TopK final : public SampleStep {
 public:
  explicit TopK(int64_t k) : k_(static_cast<size_t>(k)) {}
  void apply(Candidates& candidates, std::span<const int32_t>) const override {
    candidates.best(k_);
    candidates.keep_first(k_);
  }

 private:
  size_t k_;
};

class TopP final : public SampleStep {
 public:
  explicit TopP(double p) : p_(p) {}
  void apply(Candidates& candidates, std::span<const int32_t>) const override {
    if (p_ >= 1) return;
    candidates.keep_first(count(candidates));
  }

 private:
  /// Returns how many of the best candidates reach probability p. Sorts only as many as needed, which are
  /// usually few.
  size_t count(Candidates& candidates) const {
    const double log_sum = candidates.log_sum();
    for (size_t n = 64;; n *= 4) {
      const auto best = candidates.best(n);
      double mass = 0;
      for (size_t i = 0; i < best.size(); ++i) {
        mass += std::exp(best[i].logit - log_sum);
        if (mass >= p_) return i + 1;
      }
      if (best.size() == candidates.size()) return best.size();
    }
  }
  double p_;
};

class MinP final : public SampleStep {
 public:
  explicit MinP(double p) : p_(p) {}
  void apply(Candidates& candidates, std::span<const int32_t>) const override {
    if (p_ > 0) candidates.keep_above(candidates.max_logit() + std::log(p_));
  }

 private:
  double p_;
};

MethodInfo describe(const char* name, const char* summary, const char* paper, const char* time,
                    Parameter parameter) {
  return {"", name, summary, paper, false, "any model", time, "none", {std::move(parameter)}};
}

}  // namespace

SampleEntry top_k_method() {
  return {describe("top-k", "only the k most likely tokens", "Hierarchical Neural Story Generation, 2018",
                   "O(v + k log k)",
                   {"k",
                    Parameter::Type::kInt,
                    "40",
                    "tokens to choose from; more is more varied",
                    1,
                    int64_t{1} << 31,
                    {}}),
          [](const Values& values) { return std::make_unique<TopK>(values.integer("k")); }};
}

SampleEntry top_p_method() {
  return {describe("top-p", "the smallest set of most likely tokens with total probability p",
                   "The Curious Case of Neural Text Degeneration, 2020", "O(v log v)",
                   {"p",
                    Parameter::Type::kFloat,
                    "0.95",
                    "total probability kept; more is more varied; 1 keeps all",
                    0,
                    1,
                    {}}),
          [](const Values& values) { return std::make_unique<TopP>(values.number("p")); }};
}

SampleEntry min_p_method() {
  return {describe("min-p", "only tokens at least p times as likely as the most likely one",
                   "Turning Up the Heat: Min-p Sampling for Creative and Coherent LLM Outputs, 2024", "O(v)",
                   {"p",
                    Parameter::Type::kFloat,
                    "0.05",
                    "least share of the top token's probability; more is less varied; 0 keeps all",
                    0,
                    1,
                    {}}),
          [](const Values& values) { return std::make_unique<MinP>(values.number("p")); }};
}

}  // namespace fathom
