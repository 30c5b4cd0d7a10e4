#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "attend/selector.h"
#include "base/stop_token.h"
#include "decode/datastore.h"
#include "session/engine.h"

namespace fathom {

/// Reads one sequence with dense attention and returns the hidden states of its tokens.
class HiddenStates {
 public:
  /// Receives the output of the last layer for a token, before the output norm, [width]. logits: those after the
  /// token, [vocabulary]; empty if they were not requested. index: of the token in the call of read().
  using Visit = std::function<void(int64_t index, std::span<const float> hidden, std::span<const float> logits)>;

  /// Starts an empty sequence; the engine must outlive this. Throws Error (usage) for a model with landmarks, whose
  /// landmark tokens only Session inserts.
  explicit HiddenStates(Engine& engine);
  /// Reads tokens after those of earlier calls. Throws Error as Engine::forward.
  void read(std::span<const int32_t> tokens, bool with_logits, const Visit& visit, const StopToken* stop = nullptr);

 private:
  Engine& engine_;
  std::unique_ptr<Selector> dense_;
  Sequence sequence_;
};

/// Returns the key of a hidden state: the state divided by its root mean square. Keys and queries use the same one.
/// Throws Error if a number is not finite.
std::vector<float> datastore_key(std::span<const float> hidden);

struct DatastoreBuildOptions {
  int64_t window = 512;   // tokens that the model reads at once
  int64_t overlap = 256;  // first tokens of a window that are context only, because the window before it holds them
  int64_t memory = int64_t{4} << 30;  // limit in bytes for the keys
  DatastoreOptions index{};
  const StopToken* stop = nullptr;
  std::function<void(int64_t done)> progress{};  // called after each window; done: entries so far
};

/// Reads texts, given as tokens, and returns a datastore with one entry for each token that another one follows:
/// key of its hidden state, and the next token. Throws Error if there are no such tokens, if the keys exceed the
/// memory limit, for an invalid window, and as HiddenStates.
Datastore build_datastore(Engine& engine, std::span<const std::vector<int32_t>> texts,
                          const DatastoreBuildOptions& options = {});

struct KnnLmOptions {
  int64_t neighbours = 64;  // entries that vote for the next token
  double lambda = 0.25;     // weight of their distribution, 0 to 1
  /// Squared distances are divided by it; more spreads the votes. Of 1, 10, 20, 40 and 80, 10 gave the lowest loss
  /// or one within 0.001 nats of it on two novels (bench/knn_lm).
  double temperature = 10;
};

/// A language model that mixes a model's next-token distribution with that of the nearest entries of a datastore:
/// p = (1 − λ)·p_model + λ·p_knn, with p_knn(w) ∝ Σ exp(−d / temperature) over the neighbours with token w.
/// Immutable and thread-safe. The paper stores the input of the last feed-forward; this uses the output of the last
/// layer. Source: Khandelwal et al., "Generalization through Memorization: Nearest Neighbor Language Models", 2020;
/// Wang et al., "kNN-LM Does Not Improve Open-ended Text Generation", 2023.
class KnnLm {
 public:
  /// Throws Error (usage) for options out of range.
  explicit KnnLm(std::shared_ptr<const Datastore> datastore, KnnLmOptions options = {});

  /// Returns the tokens of the neighbours and their probabilities, which sum to 1, by ascending token. hidden: the
  /// state of the newest token, as HiddenStates returns it.
  std::vector<std::pair<int32_t, double>> distribution(std::span<const float> hidden) const;
  /// Replaces the logits after a token by ln p. λ = 0 leaves them unchanged. Call it before masking tokens: a
  /// masked token of a neighbour would become possible. Throws Error if a logit is NaN or +∞, if all are −∞, or if
  /// a length differs from the model's.
  void mix(std::span<const float> hidden, std::span<float> logits) const;

 private:
  std::shared_ptr<const Datastore> datastore_;
  KnnLmOptions options_;
};

}  // namespace fathom
