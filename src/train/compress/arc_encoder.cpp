#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "train/compress_kinds.h"
#include "train/context_net.h"
#include "train/draft_net.h"
#include "train/masked_attention.h"
#include "train/pooling.h"
#include "train/random_values.h"

namespace fathom::train {
namespace {

constexpr int64_t kPassage = 256, kPooledTokens = 8;  // of the paper
constexpr const char* kContinue = "marker.continue";
constexpr const char* kReconstruct = "marker.reconstruct";

/// An encoder whose embeddings replace those of a passage's tokens ("ARC-Encoder: learning compressed text
/// representations for large language models", 2025). It is a copy of the model without its last layers, attends in
/// both directions within a passage, and is trained as a whole. In its final layer the queries are those of means
/// of consecutive rows, at positions 0, 1, …; keys and values are those of all rows. Two matrices project the
/// result to the model's width. After the embeddings the model reads a marker vector, which says whether to
/// continue the passage or to repeat it; the loss is the cross-entropy of that text.
class ArcEncoderNet final : public ContextNet {
 public:
  ArcEncoderNet(const TrainConfig::Compress& config, FrozenBase from)
      : ContextNet("arc-encoder", std::move(from), config.context_share, 1,
                   config.factor > 0 ? config.factor : kPooledTokens),
        passage_(config.segment > 0 ? config.segment : kPassage),
        layers_(base().config().model.layers - config.dropped_layers),
        reconstruction_share_(config.reconstruction_share) {
    if (layers_ < 1)
      fail_usage("compress.dropped_layers is ", config.dropped_layers, ", expected less than ",
                 base().config().model.layers, ", the layers of the model in start");
    const int64_t width = base().config().model.width;
    const int64_t inner = config.projector_width > 0 ? config.projector_width : std::max<int64_t>(1, 2 * width / 3);
    for (const NetParameter& p : base().parameters())
      if (is_copied(p.name)) add_parameter(p.name, p.rows, p.cols, p.in_layer);
    add_parameter("projector.0.weight", inner, width, true);
    add_parameter("projector.1.weight", width, inner, true);
    add_parameter(kContinue, 0, width, false);
    add_parameter(kReconstruct, 0, width, false);
    allocate(base().values().device());
  }

  void initialise(uint64_t seed) {
    for (const NetParameter& p : parameters())
      if (is_copied(p.name)) initial(p.name).copy_(base().parameter(p.name));
    const double scale = embedding_scale(base()), width = static_cast<double>(base().config().model.width);
    draw_normal(*this, "projector.0.weight", seed, 1 / std::sqrt(width));
    const NetParameter& last = *std::ranges::find(parameters(), "projector.1.weight", &NetParameter::name);
    draw_normal(*this, last.name, seed, scale / std::sqrt(static_cast<double>(last.cols)));
    for (const char* marker : {kContinue, kReconstruct}) draw_normal(*this, marker, seed, scale);
  }

  void set_metadata(GgufWriter& writer, const Gguf*) const override {
    set_base_metadata(writer);
    writer.set(key("passage"), GgufType::kU32, passage_);
    writer.set(key("factor"), GgufType::kU32, factor());
    writer.set(key("encoder_layers"), GgufType::kU32, int64_t{layers_});
  }

  at::Tensor compressed(const NetWeights& weights, const at::Tensor& context) override {
    const NetWeights own = weights_of(*this, layers_, "", weights.type);
    std::vector<at::Tensor> passages;
    for (const at::Tensor& passage : context.split(passage_, 1)) passages.push_back(encoded(own, passage));
    return at::cat(passages, 1);
  }

 protected:
  at::Tensor part_loss(const Part& part) override {
    const Rest rest = rest_of(part);
    const at::Tensor prefix = compressed(part.weights, rest.context);
    if (part.agreement) return evaluation(part, rest, prefix);
    std::vector<int64_t> continued, repeated;
    for (int64_t s = 0; s < prefix.size(0); ++s)
      (part.rng.uniform() < reconstruction_share_ ? repeated : continued).push_back(s);
    at::Tensor loss = at::zeros({}, rest.weights.options());
    const auto rows = [&](const at::Tensor& x, const std::vector<int64_t>& from) {
      return x.index_select(0, at::tensor(from, at::kLong).to(x.device()));
    };
    if (!continued.empty())
      loss = loss + text_loss(part.weights, rows(prefix, continued), kContinue, rows(rest.inputs, continued),
                              rows(rest.targets, continued), rows(rest.weights, continued));
    if (!repeated.empty()) {
      const at::Tensor tokens = rows(rest.context, repeated), all = rows(part.token_weights, repeated);
      const at::Tensor even = (all.sum(1, true) / static_cast<double>(tokens.size(1))).expand(tokens.sizes());
      loss = loss + repeat_loss(part.weights, rows(prefix, repeated), tokens, even);
    }
    return loss;
  }

 private:
  bool is_copied(const std::string& name) const {
    if (name == "token_embd.weight" || name == "output_norm.weight") return true;
    for (int i = 0; i < layers_; ++i)
      if (name.starts_with(concat("blk.", i, "."))) return true;
    return false;
  }

  /// Returns the embeddings of a passage, [sequences, groups, width] f32. passage: [sequences, tokens] int64.
  at::Tensor encoded(const NetWeights& own, const at::Tensor& passage) {
    const int64_t count = passage.size(1);
    at::Tensor x = Net::embeddings(own, passage);
    for (int layer = 0; layer < layers_; ++layer) {
      const Net::AttentionRows all = base().attention_rows(own, layer, x, base().angles().range(0, count));
      at::Tensor q = all.q;
      if (layer + 1 == layers_) {
        x = pooled_rows(x, factor());
        q = base().attention_rows(own, layer, x, base().angles().range(0, x.size(1))).q;
      }
      const at::Tensor none = at::zeros({1, q.size(1), count}, at::device(q.device()).dtype(at::kBool));
      x = base().finish_layer(own, layer, x, masked_attention(q, all.k, all.v, base().score_scale(), none));
    }
    const at::Tensor y = base().normed_output(own, x);
    return ops()
        .linear(ops().linear(y, matrix("projector.0.weight", own.type)), matrix("projector.1.weight", own.type))
        .to(at::kFloat);
  }

  /// Returns the residual stream of the rows after the embeddings and a marker, which is the first of them.
  at::Tensor marked(const NetWeights& weights, const at::Tensor& prefix, const char* marker,
                    const at::Tensor& inputs) {
    const at::Tensor mark = parameter(marker).view({1, 1, -1}).expand({prefix.size(0), 1, -1});
    return following(weights, prefix, at::cat({mark, Net::embeddings(weights, inputs)}, 1));
  }

  /// Returns the cross-entropy of the targets of the rows after the marker.
  at::Tensor text_loss(const NetWeights& weights, const at::Tensor& prefix, const char* marker,
                       const at::Tensor& inputs, const at::Tensor& targets, const at::Tensor& row_weights) {
    const at::Tensor x = marked(weights, prefix, marker, inputs).narrow(1, 1, inputs.size(1));
    return ops().cross_entropy(base().normed_output(weights, x).flatten(0, 1), weights.output, targets.flatten(),
                               row_weights.flatten());
  }

  /// Returns the output norms of the rows that repeat the tokens.
  at::Tensor repeating(const NetWeights& weights, const at::Tensor& prefix, const at::Tensor& tokens) {
    const at::Tensor inputs = tokens.narrow(1, 0, tokens.size(1) - 1);
    return base().normed_output(weights, marked(weights, prefix, kReconstruct, inputs));
  }
  at::Tensor repeat_loss(const NetWeights& weights, const at::Tensor& prefix, const at::Tensor& tokens,
                         const at::Tensor& row_weights) {
    return ops().cross_entropy(repeating(weights, prefix, tokens).flatten(0, 1), weights.output, tokens.flatten(),
                               row_weights.flatten());
  }

  /// Returns the loss of the continuation. Adds the share of the tokens that are repeated correctly as step 3 of
  /// the agreement.
  at::Tensor evaluation(const Part& part, const Rest& rest, const at::Tensor& prefix) {
    const at::Tensor x = marked(part.weights, prefix, kContinue, rest.inputs).narrow(1, 1, rest.inputs.size(1));
    const at::Tensor loss = evaluated(part, rest, x);
    const at::Tensor y = repeating(part.weights, prefix, rest.context);
    const at::Tensor choices = ops().linear(y, part.weights.output).argmax(-1);
    part.agreement->add(3, choices.eq(rest.context).sum().item<double>(), static_cast<double>(choices.numel()));
    return loss;
  }

  int64_t passage_;
  int layers_;
  double reconstruction_share_;
};

std::unique_ptr<Trainable> make_arc_encoder(const TrainConfig::Compress& config, FrozenBase base) {
  const uint64_t seed = base.seed;
  auto net = std::make_unique<ArcEncoderNet>(config, std::move(base));
  net->initialise(seed);
  return net;
}

}  // namespace

CompressTrainer arc_encoder_compression() { return {"arc-encoder", make_arc_encoder}; }

}  // namespace fathom::train
