#include "train/draft_net.h"

#include <ATen/ATen.h>

#include "base/error.h"

namespace fathom::train {

Teacher::Teacher(const Net& base, const NetWeights& weights, const at::Tensor& h, const at::Tensor& token_weights,
                 Agreement* agreement)
    : ops_(base.ops()), token_weights_(token_weights), agreement_(agreement) {
  const at::NoGradGuard no_gradients;
  shares_ = at::softmax(ops_.linear(h.flatten(0, 1), weights.output).to(at::kFloat), -1);
}

at::Tensor Teacher::share_rows(int64_t shift) const {
  const int64_t sequences = token_weights_.size(0), length = token_weights_.size(1);
  return at::arange(sequences * length, token_weights_.options().dtype(at::kLong))
      .view({sequences, length})
      .narrow(1, shift, length - shift)
      .flatten();
}

at::Tensor Teacher::loss(const Rows& rows) const {
  return ops_.soft_cross_entropy(rows.y.flatten(0, 1), rows.output, shares_, share_rows(rows.shift),
                                 token_weights_.narrow(1, rows.shift, rows.y.size(1)).flatten());
}

void Teacher::add_agreement(const Rows& rows, const at::Tensor& row_weights, int64_t step) const {
  const at::Tensor first_choices = ops_.linear(rows.y.flatten(0, 1), rows.output).argmax(-1);
  const at::Tensor equal = first_choices.eq(shares_.argmax(-1).index_select(0, share_rows(rows.shift)));
  const at::Tensor weights = row_weights.narrow(1, rows.shift, rows.y.size(1)).flatten();
  agreement_->add(step, (equal.to(at::kFloat) * weights).sum().item<double>(), weights.sum().item<double>());
}

at::Tensor Teacher::step_loss(const Rows& rows, int64_t step) const {
  if (evaluates()) add_agreement(rows, token_weights_, step);
  return loss(rows);
}

at::Tensor Teacher::probabilities(const at::Tensor& tokens) const {
  const at::Tensor targets = tokens.narrow(1, 1, tokens.size(1) - 1);
  return shares_.gather(1, targets.reshape({-1, 1})).view(targets.sizes());
}

void check_plain_attention(const char* kind, const Net& base, const char* field) {
  const ModelConfig& c = base.config().model;
  if (!c.softplus && c.sliding_window == 0) return;
  fail_usage(field, " is ", kind, ", but the model in start has ", c.softplus ? "softplus attention" : "a window",
             "; expected softmax attention to all tokens");
}

}  // namespace fathom::train
