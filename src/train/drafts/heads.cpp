#include <ATen/ATen.h>

#include "base/error.h"
#include "train/draft_net.h"

namespace fathom::train {
namespace {

/// Heads on the base's last hidden state h of a token, which predict the tokens after the next one. The sequential
/// form ("Hydra: Sequentially-Dependent Draft Heads for Medusa Decoding", 2024) also reads the embeddings of the
/// tokens in between; the other is that of "Medusa: Simple LLM Inference Acceleration Framework with Multiple
/// Decoding Heads" (2024). Head i, counted from 0:
///   z = [h ; E(x_1) ; … ; E(x_{i+1})], or h
///   y = R z + silu(W_0 z + b_0), R z = h if z = h;  y += silu(W_k y + b_k);  logits = O y
class HeadsNet final : public DraftNet {
 public:
  HeadsNet(const TrainConfig::Draft& config, FrozenBase from)
      : DraftNet("heads", std::move(from)), config_(config) {
    for (int i = 0; i < config.steps; ++i) add_head(i);
    allocate(base().values().device());
    initialise();
  }

  void set_metadata(GgufWriter& writer, const Gguf* tokenizer) const override {
    DraftNet::set_metadata(writer, tokenizer);
    writer.set("draft.steps", GgufType::kU32, config_.steps);
    writer.set("draft.blocks", GgufType::kU32, config_.blocks);
    writer.set("draft.sequential", GgufType::kBool, config_.sequential);
  }

 protected:
  at::Tensor part_loss(const Part& part) override {
    const int64_t length = part.tokens.size(1) - 1;
    const at::Tensor read = part.tokens.narrow(1, 0, length), embedded = Net::embeddings(part.weights, read);
    at::Tensor h;
    {
      const at::NoGradGuard no_gradients;
      h = base().normed_output(part.weights,
                               base().run_layers(part.weights, embedded, 0, base().config().model.layers));
    }
    const Teacher teacher(base(), part.weights, h, part.token_weights, part.agreement);
    at::Tensor loss = at::zeros({}, part.token_weights.options());
    for (int i = 0; i < config_.steps && i + 1 < length; ++i) {
      const at::Tensor y = head(i, h, embedded.to(part.weights.type));
      const at::Tensor output =
          config_.own_output ? matrix(tensor(i, "output"), part.weights.type) : part.weights.output;
      loss = loss + teacher.step_loss({y, output, i + 1}, i);
    }
    return loss / static_cast<double>(config_.steps);
  }

 private:
  static std::string tensor(int head, const std::string& name) {
    return concat("head.", head, ".", name, ".weight");
  }
  static std::string block(int head, int64_t k) { return concat("head.", head, ".block.", k); }

  void add_head(int i) {
    const ModelConfig& c = base().config().model;
    const int64_t inputs = config_.sequential ? (i + 2) * c.width : c.width;
    if (config_.sequential) add_parameter(tensor(i, "residual"), c.width, inputs, true);
    for (int64_t k = 0; k < config_.blocks; ++k) {
      add_parameter(block(i, k) + ".weight", c.width, k == 0 ? inputs : c.width, true);
      add_parameter(block(i, k) + ".bias", 0, c.width, true);
    }
    if (config_.own_output) add_parameter(tensor(i, "output"), c.vocabulary, c.width, false);
  }

  /// Sets R = [I 0 … 0] and W = 0, b = 0, so that y = h, and O to the base's output matrix.
  void initialise() {
    const NetWeights weights = base().frozen_weights(at::kFloat);
    for (int i = 0; i < config_.steps; ++i) {
      if (config_.sequential) initial(tensor(i, "residual")).diagonal().fill_(1);
      if (config_.own_output) initial(tensor(i, "output")).copy_(weights.output);
    }
  }

  /// Returns y of a head, [sequences, length − i − 1, width]. h, embedded: [sequences, length, width].
  at::Tensor head(int i, const at::Tensor& h, const at::Tensor& embedded) const {
    const int64_t rows = h.size(1) - i - 1;
    std::vector<at::Tensor> inputs{h.narrow(1, 0, rows)};
    for (int j = 1; config_.sequential && j <= i + 1; ++j) inputs.push_back(embedded.narrow(1, j, rows));
    const at::Tensor z = at::cat(inputs, 2);
    const auto silu_block = [&](int64_t k, const at::Tensor& x) {
      return at::silu(ops().linear(x, matrix(block(i, k) + ".weight", x.scalar_type())) +
                      parameter(block(i, k) + ".bias"));
    };
    at::Tensor y = config_.sequential ? ops().linear(z, matrix(tensor(i, "residual"), z.scalar_type())) : z;
    y = y + silu_block(0, z);
    for (int64_t k = 1; k < config_.blocks; ++k) y = y + silu_block(k, y.to(h.scalar_type()));
    return y.to(h.scalar_type());
  }

  TrainConfig::Draft config_;
};

std::unique_ptr<Trainable> make_heads(const TrainConfig::Draft& config, FrozenBase base) {
  return std::make_unique<HeadsNet>(config, std::move(base));
}

}  // namespace

DraftTrainer heads_draft() { return {"heads", make_heads}; }

}  // namespace fathom::train
