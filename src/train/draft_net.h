#pragma once

#include <memory>

#include "train/draft_kinds.h"
#include "train/side_net.h"

namespace fathom::train {

/// A frozen base that reads a batch: the distributions that a draft learns, and the losses of the draft's steps.
class Teacher {
 public:
  /// h: the base's output norm of all rows, [sequences, length, width]; row i predicts token i + 1. token_weights:
  /// [sequences, length].
  Teacher(const Net& base, const NetWeights& weights, const at::Tensor& h, const at::Tensor& token_weights,
          Agreement* agreement);

  /// Rows of a draft: row i predicts the same token as row i + shift of the base.
  struct Rows {
    at::Tensor y;       // [sequences, length − shift, width]
    at::Tensor output;  // [vocabulary, width], the matrix that gives the logits of y
    int64_t shift = 0;
  };
  /// Returns Σ weight·(cross-entropy to the base's distribution), a scalar.
  at::Tensor loss(const Rows& rows) const;
  /// Adds the agreement of the rows as that of a step. row_weights: [sequences, length], of the base's rows.
  void add_agreement(const Rows& rows, const at::Tensor& row_weights, int64_t step) const;
  /// Returns loss(); in an evaluation, adds the agreement of all rows.
  at::Tensor step_loss(const Rows& rows, int64_t step) const;
  /// Returns the base's probability of the token that each row predicts, [sequences, length]. tokens: [sequences,
  /// length + 1].
  at::Tensor probabilities(const at::Tensor& tokens) const;
  /// Returns whether this is an evaluation.
  bool evaluates() const { return agreement_ != nullptr; }

 private:
  /// Returns the row of shares_ of each row of a draft, [sequences · (length − shift)].
  at::Tensor share_rows(int64_t shift) const;

  const LayerOps& ops_;
  at::Tensor token_weights_;  // [sequences, length]
  at::Tensor shares_;         // [sequences · length, vocabulary], probabilities
  Agreement* agreement_;
};

/// A draft source that learns the distributions of a frozen base.
class DraftNet : public SideNet {
 public:
  /// Sets the metadata that all draft files share.
  void set_metadata(GgufWriter& writer, const Gguf*) const override { set_base_metadata(writer); }

 protected:
  /// kind: as in the file.
  DraftNet(const char* kind, FrozenBase from) : SideNet("draft", kind, std::move(from)) {}
};

/// Throws Error (usage) unless the base's attention is softmax without a window. field: the config field whose
/// value is `kind`.
void check_plain_attention(const char* kind, const Net& base, const char* field = "draft.kind");

}  // namespace fathom::train
