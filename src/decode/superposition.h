#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/spec.h"
#include "session/session.h"

namespace fathom {

// What the search and the draft source of Superposed Decoding share. Source: "Superposed Decoding: Multiple
// Generations from a Single Autoregressive Inference Pass", 2024.

/// The weights of 2- to 6-grams, as in the paper.
inline constexpr std::array<double, 5> kNgramWeights{.01, .04, .15, .18, .12};

/// Returns (1 − alpha) · log_p + alpha · ln ngram_p; a token that no n-gram supports gets a penalty instead.
double smooth_log_probability(double log_p, double ngram_p, double alpha);

/// Returns the probabilities of texts with these log-probabilities (or scores), normalised to the sum 1.
std::vector<double> normalised_weights(std::span<const double> scores);

/// The parameters `alpha`, `temperature` and `top`.
std::vector<Parameter> superposition_parameters();

/// Continues a session by several texts with one row per token: the sum of the embeddings of their newest tokens,
/// weighted by the texts' probabilities. The rows attend to all tokens, whatever the --attend method.
class Superposition {
 public:
  /// Starts after the tokens of the session, which must outlive this and is unchanged.
  explicit Superposition(const Session& session);

  /// Reads the newest tokens of the texts. scores: [texts] log-probabilities. Returns the logits after them,
  /// [vocabulary]. Throws Error (out of memory, interrupted).
  std::vector<float> read(std::span<const int32_t> newest, std::span<const double> scores);

 private:
  const Session& session_;
  std::unique_ptr<Selector> selector_;
  Sequence sequence_;
};

}  // namespace fathom
