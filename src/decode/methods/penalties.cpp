#include <algorithm>
#include <map>

#include "decode/methods.h"

namespace fathom {
namespace {

/// Adjusts the logits of tokens that occur in the newest `window` tokens of the history.
class Penalty : public SampleStep {
 public:
  explicit Penalty(int64_t window) : window_(static_cast<size_t>(window)) {}

  void apply(Candidates& candidates, std::span<const int32_t> history) const final {
    std::map<int32_t, int> counts;
    for (const int32_t id : history.last(std::min(window_, history.size()))) ++counts[id];
    for (const auto& [id, count] : counts) {
      if (Candidate* candidate = candidates.find(id)) candidate->logit = penalised(candidate->logit, count);
    }
  }
  bool draws() const final { return false; }

 protected:
  virtual float penalised(float logit, int count) const = 0;

 private:
  size_t window_;
};

class Repetition final : public Penalty {
 public:
  Repetition(double factor, int64_t window) : Penalty(window), factor_(static_cast<float>(factor)) {}
  float penalised(float logit, int) const override { return logit > 0 ? logit / factor_ : logit * factor_; }

 private:
  float factor_;
};

class Presence final : public Penalty {
 public:
  Presence(double amount, int64_t window) : Penalty(window), amount_(static_cast<float>(amount)) {}
  float penalised(float logit, int) const override { return logit - amount_; }

 private:
  float amount_;
};

class Frequency final : public Penalty {
 public:
  Frequency(double amount, int64_t window) : Penalty(window), amount_(static_cast<float>(amount)) {}
  float penalised(float logit, int count) const override { return logit - amount_ * static_cast<float>(count); }

 private:
  float amount_;
};

MethodInfo describe(const char* name, const char* summary, const char* paper, Parameter amount) {
  return {"",
          name,
          summary,
          paper,
          false,
          "any model",
          "O(window)",
          "none",
          {std::move(amount),
           {"window",
            Parameter::Type::kInt,
            "256",
            "newest tokens that count, the prompt included; more penalises older repetitions too",
            0,
            1e12,
            {}}}};
}

}  // namespace

SampleEntry repetition_method() {
  return {describe("repetition",
                   "makes recent tokens less likely by a factor: positive logits are divided, negative multiplied",
                   "CTRL: A Conditional Transformer Language Model for Controllable Generation, 2019",
                   {"penalty",
                    Parameter::Type::kFloat,
                    "1.1",
                    "the factor; more repeats less; 1 changes nothing",
                    0.01,
                    100,
                    {}}),
          [](const Values& values) {
            return std::make_unique<Repetition>(values.number("penalty"), values.integer("window"));
          }};
}

SampleEntry presence_method() {
  return {describe("presence", "subtracts a fixed amount from the logits of recent tokens", "",
                   {"penalty",
                    Parameter::Type::kFloat,
                    "0.5",
                    "the amount; more repeats less; 0 changes nothing",
                    -100,
                    100,
                    {}}),
          [](const Values& values) {
            return std::make_unique<Presence>(values.number("penalty"), values.integer("window"));
          }};
}

SampleEntry frequency_method() {
  return {
      describe("frequency", "subtracts an amount from the logit of a recent token for each of its occurrences", "",
               {"penalty",
                Parameter::Type::kFloat,
                "0.5",
                "the amount per occurrence; more repeats less; 0 changes nothing",
                -100,
                100,
                {}}),
      [](const Values& values) {
        return std::make_unique<Frequency>(values.number("penalty"), values.integer("window"));
      }};
}

}  // namespace fathom
