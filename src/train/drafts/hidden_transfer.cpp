#include <ATen/ATen.h>

#include <vector>

#include "base/error.h"
#include "train/draft_net.h"
#include "train/masked_attention.h"

namespace fathom::train {
namespace {

/// Pseudo rows ("Parallel Decoding via Hidden Transfer for Lossless Large Language Model Acceleration", 2024). At
/// the input of layer t, pseudo row i (from 1) of a real row at position p starts as W_i·x, x being the residual
/// stream of the real row. It runs through layers t, t + 1, … at position p + i and attends to what the real row
/// attends to, to the real row, and to pseudo rows 1..i of the same real row. Its logits predict token p + 1 + i.
class HiddenTransferNet final : public DraftNet {
 public:
  HiddenTransferNet(const TrainConfig::Draft& config, FrozenBase from)
      : DraftNet("hidden-transfer", std::move(from)), steps_(config.steps) {
    const ModelConfig& c = base().config().model;
    check_plain_attention("hidden-transfer", base());
    first_layer_ = static_cast<int>(config.transfer_layer > 0 ? config.transfer_layer : c.layers / 2);
    if (c.layers < 2) fail_usage("draft.kind is hidden-transfer, but the model in start has only one layer");
    if (first_layer_ < 1 || first_layer_ >= c.layers) {
      fail_usage("draft.transfer_layer is ", first_layer_, ", expected 1 to ", c.layers - 1,
                 ", the layers of the model in start after its first");
    }
    for (int i = 0; i < steps_; ++i) add_parameter(tensor(i), c.width, c.width, true);
    allocate(base().values().device());
    for (int i = 0; i < steps_; ++i) initial(tensor(i)).diagonal().fill_(1);
  }

  void set_metadata(GgufWriter& writer, const Gguf* tokenizer) const override {
    DraftNet::set_metadata(writer, tokenizer);
    writer.set("draft.steps", GgufType::kU32, steps_);
    writer.set_integers("draft.transfer.layers", std::vector<int32_t>(steps_, first_layer_));
  }

 protected:
  at::Tensor part_loss(const Part& part) override {
    const int64_t length = part.tokens.size(1) - 1, steps = std::min(steps_, length - 1);
    at::Tensor real = Net::embeddings(part.weights, part.tokens.narrow(1, 0, length));
    {
      const at::NoGradGuard no_gradients;
      real = base().run_layers(part.weights, real, 0, first_layer_);
    }
    std::vector<at::Tensor> pseudo;
    for (int i = 0; i < steps; ++i) {
      pseudo.push_back(
          ops().linear(real.to(part.weights.type), matrix(tensor(i), part.weights.type)).to(at::kFloat));
    }
    for (int layer = first_layer_; layer < base().config().model.layers; ++layer) {
      Net::AttentionRows rows;
      at::Tensor next;
      {
        const at::NoGradGuard no_gradients;
        rows = base().attention_rows(part.weights, layer, real, base().angles().range(0, length));
        next = base().finish_layer(part.weights, layer, real, base().attend(rows));
      }
      pseudo = next_pseudo_rows(part.weights, layer, rows, pseudo);
      real = next;
    }
    return loss_of(part, real, pseudo);
  }

 private:
  static std::string tensor(int step) { return concat("transfer.", step, ".weight"); }

  /// Returns the pseudo rows after a layer. real: the base's rows in this layer; pseudo: the residual stream before
  /// it, [sequences, length, width].
  std::vector<at::Tensor> next_pseudo_rows(const NetWeights& weights, int layer, const Net::AttentionRows& real,
                                           const std::vector<at::Tensor>& pseudo) {
    const int64_t length = real.q.size(1), kv_heads = base().config().model.kv_heads;
    const Net::AttentionRows keys = grouped(real, kv_heads);
    std::vector<Net::AttentionRows> own;
    std::vector<at::Tensor> next;
    for (size_t i = 0; i < pseudo.size(); ++i) {
      const Angles angles = base().angles().range(static_cast<int64_t>(i) + 1, length);
      own.push_back(grouped(base().attention_rows(weights, layer, pseudo[i], angles), kv_heads));
      next.push_back(base().finish_layer(weights, layer, pseudo[i], attended(keys, own)));
    }
    return next;
  }

  static Net::AttentionRows grouped(const Net::AttentionRows& rows, int64_t kv_heads) {
    return {grouped_rows(rows.q, kv_heads), grouped_rows(rows.k, kv_heads), grouped_rows(rows.v, kv_heads)};
  }

  /// Returns the attention of the last of the pseudo rows, [sequences, length, heads, value_dim]. real: rows of the
  /// base; own: pseudo rows 1..i. All rows are grouped.
  at::Tensor attended(const Net::AttentionRows& real, const std::vector<Net::AttentionRows>& own) const {
    const at::Tensor& q = own.back().q;
    const int64_t length = q.size(3);
    const at::Tensor later = at::ones({length, length}, q.options().dtype(at::kBool)).triu(1);
    std::vector<at::Tensor> scores{
        at::matmul(q, real.k.transpose(3, 4)).to(at::kFloat).masked_fill(later, kMaskedScore)};
    for (const Net::AttentionRows& rows : own) scores.push_back((q * rows.k).to(at::kFloat).sum(-1, true));
    const at::Tensor shares = at::softmax(at::cat(scores, -1) * base().score_scale(), -1).to(q.scalar_type());
    at::Tensor result = at::matmul(shares.narrow(-1, 0, length), real.v);
    for (size_t i = 0; i < own.size(); ++i) {
      result = result + shares.narrow(-1, length + static_cast<int64_t>(i), 1) * own[i].v;
    }
    return ungrouped_rows(result);
  }

  at::Tensor loss_of(const Part& part, const at::Tensor& real, const std::vector<at::Tensor>& pseudo) const {
    const Teacher teacher(base(), part.weights, base().normed_output(part.weights, real), part.token_weights,
                          part.agreement);
    at::Tensor loss = at::zeros({}, part.token_weights.options());
    for (size_t i = 0; i < pseudo.size(); ++i) {
      const int64_t shift = static_cast<int64_t>(i) + 1;
      const at::Tensor rows = pseudo[i].narrow(1, 0, pseudo[i].size(1) - shift);
      const at::Tensor y = base().normed_output(part.weights, rows);
      loss = loss + teacher.step_loss({y, part.weights.output, shift}, shift - 1);
    }
    return loss / static_cast<double>(steps_);
  }

  int64_t steps_;
  int first_layer_ = 1;
};

std::unique_ptr<Trainable> make_hidden_transfer(const TrainConfig::Draft& config, FrozenBase base) {
  return std::make_unique<HiddenTransferNet>(config, std::move(base));
}

}  // namespace

DraftTrainer hidden_transfer_draft() { return {"hidden-transfer", make_hidden_transfer}; }

}  // namespace fathom::train
