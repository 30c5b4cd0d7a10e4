#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/stop_token.h"
#include "kernels/types.h"
#include "memory/draft_tree.h"
#include "mixers/mixer.h"

namespace fathom {

/// A token and its logit.
struct TokenLogit {
  int32_t token = 0;
  float logit = 0;
};

/// Appends the k largest logits of one row, the largest first; equal logits are ordered by token id.
void append_top_logits(std::span<const float> logits, int k, std::vector<TokenLogit>& top);

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

/// Maps from the residual stream of a token to those of the tokens after it, in the middle of the layers. A row
/// that is computed from such a state predicts a later token than the row that it was computed from. Source:
/// Parallel Decoding via Hidden Transfer, 2024.
struct HiddenTransfer {
  std::vector<int> layers;      // [steps] first layer of a step, in [1, layers of the model); ascending or equal
  std::vector<Matrix> weights;  // [steps] [width, width]

  int steps() const { return static_cast<int>(layers.size()); }
};

/// A draft of a sequence while the model reads it (Engine::forward) and until one of its paths is accepted
/// (Engine::accept). The first path from a root to a leaf is opened in the sequence itself, each other one in a
/// fork.
struct OpenDraft {
  DraftTree tree;
  std::vector<int32_t> tokens;  // [nodes]
  /// Not null: nodes with a step i > 0 are pseudo rows. Before layer transfer->layers[i − 1] their residual stream
  /// is replaced by transfer->weights[i − 1] · that of their nearest ancestor with step 0. They cannot be accepted.
  const HiddenTransfer* transfer = nullptr;
  /// [nodes] if `transfer` is set. 0: a root, or a token whose parent is a token; otherwise one more than that of
  /// the parent.
  std::vector<uint8_t> steps{};

  struct Leaf {
    std::unique_ptr<Sequence> fork;      // null: the sequence itself
    std::vector<int> path;               // nodes from a root to the leaf
    int64_t shared = 0;                  // number of its first nodes that are rows of earlier leaves
    std::vector<int64_t> positions;      // [path]
    std::vector<int64_t> shared_rows{};  // [shared] in the batch
  };
  std::vector<Leaf> leaves{};
  std::vector<int64_t> rows{};                      // [nodes] row of each node among those of the draft
  std::unique_ptr<SequenceState> selector_state{};  // before the draft; null: the selector has none
  DraftQueries queries{};                           // only if a selector's state or a listener needs them
};

/// The rows of one sequence in a forward pass (Engine::forward): tokens after the newest one, or a draft, and the
/// outputs that the caller needs.
struct Rows {
  Sequence* sequence = nullptr;
  AttendPolicy policy{};
  std::span<const int32_t> tokens{};    // [rows] token ids
  std::span<const float> embeddings{};  // [rows, width] instead of ids; empty: ids
  /// [rows]; empty: consecutive after the last token. Must be empty for drafts.
  std::span<const int64_t> positions{};
  /// A draft (tree and tokens) to be read instead of `tokens`, and then accepted in part (Engine::accept). Row i is
  /// node i. Each row gets the results, bit by bit, that it would get if its path was read token by token. null: no
  /// draft.
  OpenDraft* draft = nullptr;

  std::span<const int64_t> output_rows{};  // rows whose logits and hidden states are returned, ascending
  int top_k = 0;                           // > 0: result.top is filled instead of result.logits
  /// Layers whose outputs are returned in result.hidden, ascending; the number of layers that the sequence runs:
  /// the normalised output of the last one, from which logits are computed.
  std::span<const int> hidden_layers{};
  /// Rows whose logits are passed to `visit`, a few rows at a time, and not stored; i: index into visited_rows.
  std::span<const int64_t> visited_rows{};
  std::function<void(size_t i, std::span<const float> logits)> visit{};

  const StopToken* stop = nullptr;  // the pass stops between layers once all members request it; null: never
  RowsResult result{};

  /// Number of rows. width: of the model.
  int64_t count(int64_t width) const {
    if (draft) return draft->tree.size();
    return embeddings.empty() ? std::ssize(tokens) : std::ssize(embeddings) / width;
  }
};

}  // namespace fathom
