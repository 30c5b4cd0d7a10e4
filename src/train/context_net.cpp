#include "train/context_net.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "train/draft_net.h"

namespace fathom::train {

ContextNet::ContextNet(const char* kind, FrozenBase from, double share, int64_t multiple, int64_t factor)
    : SideNet("compression", kind, std::move(from)), share_(share), multiple_(multiple), factor_(factor) {
  check_plain_attention(kind, base(), "compress.kind");
}

int64_t ContextNet::context_tokens(int64_t length) const {
  const auto wanted = static_cast<int64_t>(share_ * static_cast<double>(length)) / multiple_ * multiple_;
  const int64_t tokens = std::max(wanted, multiple_);
  if (tokens >= length)
    fail_usage("rows have ", length, " tokens, expected more than ", tokens, ", which are compressed; ",
               "data.lengths.shortest is too small");
  return tokens;
}

at::Tensor ContextNet::following(const NetWeights& weights, const at::Tensor& prefix, const at::Tensor& rows) {
  const at::Tensor x = base().run_layers(weights, at::cat({prefix, rows}, 1), 0, base().config().model.layers);
  return x.narrow(1, prefix.size(1), rows.size(1));
}

ContextNet::Rest ContextNet::rest_of(const Part& part) const {
  const int64_t length = part.tokens.size(1) - 1, context = context_tokens(length), rows = length - context;
  const at::Tensor own = part.token_weights.narrow(1, context, rows);
  const at::Tensor scale = part.token_weights.sum() / own.sum().clamp_min(1e-6);
  return {part.tokens.narrow(1, 0, context), part.tokens.narrow(1, context, rows),
          part.tokens.narrow(1, context + 1, rows), own * scale};
}

at::Tensor ContextNet::evaluated(const Part& part, const Rest& rest, const at::Tensor& compressed_rows) {
  const at::NoGradGuard no_gradients;
  const at::Tensor rows = Net::embeddings(part.weights, rest.inputs);
  const auto normed = [&](const at::Tensor& x) { return base().normed_output(part.weights, x); };
  const auto after = [&](const at::Tensor& tokens) {
    return normed(following(part.weights, Net::embeddings(part.weights, tokens), rows));
  };
  const at::Tensor y = normed(compressed_rows);
  const Teacher full(base(), part.weights, after(rest.context), rest.weights, part.agreement);
  full.add_agreement({y, part.weights.output}, rest.weights, 0);
  full.add_agreement({after(rest.context.slice(1, 0, {}, factor_)), part.weights.output}, rest.weights, 1);
  full.add_agreement({after(rest.context.narrow(1, 0, 0)), part.weights.output}, rest.weights, 2);
  return ops().cross_entropy(y.flatten(0, 1), part.weights.output, rest.targets.flatten(), rest.weights.flatten());
}

double embedding_scale(const Net& net) {
  return std::sqrt(net.parameter("token_embd.weight").detach().square().mean().item<double>());
}

}  // namespace fathom::train
