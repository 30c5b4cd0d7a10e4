#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <span>
#include <vector>

#include "base/stop_token.h"
#include "mixers/mixer.h"

namespace fathom {

/// A token and its logit.
struct TokenLogit {
  int32_t token = 0;
  float logit = 0;
};

/// What a pass gives for the rows of one sequence.
struct RowsResult {
  std::vector<float> logits;    // [wanted, vocabulary], unless top_k was set
  std::vector<TokenLogit> top;  // [wanted, top_k], the largest first
  std::vector<float> hidden;    // [hidden_layers, wanted, width]
  /// Why this member of the batch failed; its sequence is then as it was before. null: it did not.
  std::exception_ptr error;

  void throw_if_failed() const {
    if (error) std::rethrow_exception(error);
  }
};

/// The rows of one sequence in a pass (Engine::forward): tokens that follow the newest one, or a draft.
struct Rows {
  Sequence* sequence = nullptr;
  AttendPolicy policy{};
  std::span<const int32_t> tokens{};     // token ids; of a draft those of its nodes
  std::span<const float> embeddings{};   // [rows, width] in place of ids; empty: ids
  std::span<const int64_t> positions{};  // of the tokens; empty: they follow the last one. Not for drafts
  /// The tokens are a draft, to be accepted in part (Engine::accept) or abandoned. null: they are not.
  const DraftTree* draft = nullptr;
  DraftQueries* draft_queries = nullptr;  // filled for Engine::accept; null: selectors and listeners need none

  std::span<const int64_t> wanted{};     // rows for which result has logits and hidden states, ascending
  int top_k = 0;                         // > 0: result.top in place of result.logits
  std::span<const int> hidden_layers{};  // layers whose output result.hidden has, ascending
  /// Rows whose logits are shown to `visit` a few at a time and not kept; i: index into `visited`.
  std::span<const int64_t> visited{};
  std::function<void(size_t i, std::span<const float> logits)> visit{};

  const StopToken* stop = nullptr;  // ends the pass between layers once all its members want to stop; null: never
  RowsResult result{};

  int64_t count(int64_t width) const {
    return embeddings.empty() ? std::ssize(tokens) : std::ssize(embeddings) / width;
  }
};

}  // namespace fathom
