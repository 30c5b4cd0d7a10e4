#pragma once

#include <memory>

#include "eval/rng.h"
#include "train/draft_kinds.h"

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
class DraftNet : public Trainable {
 public:
  int64_t vocabulary() const override { return base_->vocabulary(); }
  Loss step_loss(const LossOptions& options) final;
  /// Sets the metadata that all draft files share.
  void set_metadata(GgufWriter& writer, const Gguf* tokenizer) const override;
  Net& base() { return *base_; }
  const Net& base() const { return *base_; }

 protected:
  /// kind: as in the file.
  DraftNet(const char* kind, DraftBase from);

  /// A part of a batch for draft_loss().
  struct Part {
    const NetWeights& weights;        // of the base
    const at::Tensor& tokens;         // [sequences, length + 1]
    const at::Tensor& token_weights;  // [sequences, length]
    eval::Rng& rng;
    Agreement* agreement;
  };
  /// Returns Σ weight·loss over the tokens of a part, the mean of the draft's steps.
  virtual at::Tensor draft_loss(const Part& part) = 0;

  /// Returns a matrix of this draft in the compute type.
  at::Tensor matrix(const std::string& name, at::ScalarType type) const { return parameter(name).to(type); }
  /// Returns a tensor with the values of a parameter, for initialisation.
  at::Tensor initial(const std::string& name) const { return parameter(name).detach(); }

 private:
  const char* kind_;
  std::string name_;
  std::unique_ptr<Net> base_;
};

/// Throws Error (usage) unless the base's attention is softmax without a window.
void check_plain_attention(const char* kind, const Net& base);

}  // namespace fathom::train
