#include "decode/superposition.h"

#include <algorithm>
#include <cmath>

#include "attend/methods.h"

namespace fathom {
namespace {

constexpr double kUnseenPenalty = 200;  // of a token that no n-gram supports, as in the paper

}  // namespace

double smooth_log_probability(double log_p, double ngram_p, double alpha) {
  return (1 - alpha) * log_p + (ngram_p > 0 ? alpha * std::log(ngram_p) : -kUnseenPenalty);
}

std::vector<double> normalised_weights(std::span<const double> scores) {
  const double largest = std::ranges::max(scores);
  std::vector<double> weights;
  double sum = 0;
  for (const double score : scores) sum += weights.emplace_back(std::exp(score - largest));
  for (double& weight : weights) weight /= sum;
  return weights;
}

std::vector<Parameter> superposition_parameters() {
  using Type = Parameter::Type;
  return {{.name = "alpha",
           .type = Type::kFloat,
           .default_value = "0.54",
           .summary = "weight of the n-grams against the model; 0 ignores them",
           .min = 0,
           .max = 1},
          {.name = "temperature",
           .type = Type::kFloat,
           .default_value = "0.06",
           .summary = "of the model's distribution; less prefers its best tokens",
           .min = 0.001,
           .max = 100},
          {.name = "top",
           .type = Type::kInt,
           .default_value = "9",
           .summary = "most likely tokens that are considered at each step",
           .min = 1,
           .max = 4096}};
}

Superposition::Superposition(const Session& session)
    : session_(session), selector_(attend_methods().make("dense")), sequence_(session.sequence().fork()) {
  sequence_.set_state(Sequence::StateOf::kSelector, selector_->new_state());
  sequence_.set_state(Sequence::StateOf::kEvictor, nullptr);
}

std::vector<float> Superposition::read(std::span<const int32_t> newest, std::span<const double> scores) {
  const auto width = static_cast<size_t>(session_.model().config().width);
  std::vector<float> embeddings(newest.size() * width), row(width);
  session_.model().network().embeddings(session_.runtime().work(), newest, embeddings.data());
  const std::vector<double> weights = normalised_weights(scores);
  for (size_t i = 0; i < width; ++i) {
    double sum = 0;
    for (size_t text = 0; text < weights.size(); ++text) sum += weights[text] * embeddings[text * width + i];
    row[i] = static_cast<float>(sum);
  }
  const int64_t output = 0;
  Rows rows;
  rows.sequence = &sequence_;
  rows.policy.selector = selector_.get();
  rows.embeddings = row;
  rows.output_rows = {&output, 1};
  rows.stop = session_.options().stop;
  session_.engine().forward({&rows, 1});
  rows.result.throw_if_failed();
  return std::move(rows.result.logits);
}

}  // namespace fathom
