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

/// The results of a forward pass for the rows of one sequence.
struct RowsResult {
  std::vector<float> logits;    // [output_rows, vocabulary], unless top_k was set
  std::vector<TokenLogit> top;  // [output_rows, top_k], the largest first
  std::vector<float> hidden;    // [hidden_layers, output_rows, width]
  /// The error of this member of the batch, whose sequence is then unchanged; null: it succeeded.
  std::exception_ptr error;

  void throw_if_failed() const {
    if (error) std::rethrow_exception(error);
  }
};

/// The rows of one sequence in a forward pass (Engine::forward): tokens after the newest one, or a draft, and the
/// outputs that the caller needs.
struct Rows {
  Sequence* sequence = nullptr;
  AttendPolicy policy{};
  std::span<const int32_t> tokens{};    // [rows] token ids; of the nodes of a draft
  std::span<const float> embeddings{};  // [rows, width] instead of ids; empty: ids
  /// [rows]; empty: consecutive after the last token. Must be empty for drafts.
  std::span<const int64_t> positions{};
  /// The draft whose nodes the tokens are, to be accepted in part (Engine::accept) or abandoned; null: no draft.
  const DraftTree* draft = nullptr;
  DraftQueries* draft_queries = nullptr;  // filled for Engine::accept; null: not stored

  std::span<const int64_t> output_rows{};  // rows whose logits and hidden states are returned, ascending
  int top_k = 0;                           // > 0: result.top is filled instead of result.logits
  std::span<const int> hidden_layers{};    // layers whose outputs are returned in result.hidden, ascending
  /// Rows whose logits are passed to `visit`, a few rows at a time, and not stored; i: index into visited_rows.
  std::span<const int64_t> visited_rows{};
  std::function<void(size_t i, std::span<const float> logits)> visit{};

  const StopToken* stop = nullptr;  // the pass stops between layers once all members request it; null: never
  RowsResult result{};

  /// Number of rows. width: of the model.
  int64_t count(int64_t width) const {
    return embeddings.empty() ? std::ssize(tokens) : std::ssize(embeddings) / width;
  }
};

}  // namespace fathom
