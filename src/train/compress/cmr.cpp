#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "train/compress_kinds.h"
#include "train/draft_net.h"
#include "train/masked_attention.h"
#include "train/random_values.h"

namespace fathom::train {
namespace {

/// A gated memory of hidden states ("Contextual Memory Reweaving in Large Language Models Using Layered Latent
/// State Reconstruction", 2025; the publication gives no details, this form is our own). A text is read in chunks.
/// Before a chosen layer, each row h reads the states H of earlier chunks that are in the memory:
///   r = softmax((n(h)·W_q) (n(H)·W_k)ᵀ / √rank) H,  h ← h + α·W_o r,  n(x) = x / RMS(x).
/// The memory keeps the `slots` states with the largest norm. α starts at 0 and W_o at the identity. Attention can
/// be limited to a window, so that older tokens are read from the memory only.
class CmrNet final : public SideNet {
 public:
  CmrNet(const TrainConfig::Compress& config, FrozenBase from)
      : SideNet("compression", "cmr", std::move(from)), config_(config) {
    const ModelConfig& c = base().config().model;
    if (c.softplus)
      fail_usage("compress.kind is cmr, but the model in start has softplus attention; expected softmax");
    if (config.layer > c.layers)
      fail_usage("compress.layer is ", config.layer, ", expected at most ", c.layers,
                 ", the layers of the model in start");
    for (int i = 0; i < c.layers; ++i) {
      if (!has_memory(i)) continue;
      add_parameter(memory_name(i, "q.weight"), config.rank, c.width, true);
      add_parameter(memory_name(i, "k.weight"), config.rank, c.width, true);
      add_parameter(memory_name(i, "output.weight"), c.width, c.width, true);
      add_parameter(memory_name(i, "gate"), 0, 1, true);
    }
    allocate(base().values().device());
    unit_ = at::ones({c.width}, base().values().options());
  }

  void initialise(uint64_t seed) {
    for (const NetParameter& p : parameters()) {
      if (p.name.ends_with("output.weight"))
        initial(p.name).diagonal().fill_(1);
      else if (p.rows > 0)
        draw_normal(*this, p.name, seed, 1 / std::sqrt(static_cast<double>(p.cols)));
    }
  }

  void set_metadata(GgufWriter& writer, const Gguf*) const override {
    set_base_metadata(writer);
    writer.set(key("slots"), GgufType::kU32, config_.slots);
    writer.set(key("chunk"), GgufType::kU32, config_.chunk);
    writer.set(key("rank"), GgufType::kU32, config_.rank);
    writer.set(key("window"), GgufType::kU32, window());
  }

 protected:
  at::Tensor part_loss(const Part& part) override {
    const int64_t length = part.tokens.size(1) - 1;
    const at::Tensor y = read(part, true), targets = part.tokens.narrow(1, 1, length);
    if (part.agreement) {  // correct predictions with the memory, and without it
      add_correct(part, y, targets, 0);
      add_correct(part, read(part, false), targets, 1);
    }
    return ops().cross_entropy(y.flatten(0, 1), part.weights.output, targets.flatten(),
                               part.token_weights.flatten());
  }

 private:
  static std::string memory_name(int layer, const char* part) { return concat("blk.", layer, ".memory_", part); }
  bool has_memory(int layer) const { return config_.layer == 0 || layer + 1 == config_.layer; }
  int64_t window() const { return config_.window > 0 ? config_.window : base().config().model.sliding_window; }

  /// Returns the output norms of all rows, [sequences, length, width].
  at::Tensor read(const Part& part, bool with_memory) {
    const int64_t length = part.tokens.size(1) - 1;
    const Angles angles = base().angles().range(0, length);
    at::Tensor x = Net::embeddings(part.weights, part.tokens.narrow(1, 0, length));
    for (int i = 0; i < base().config().model.layers; ++i) {
      if (with_memory && has_memory(i) && length > config_.chunk) x = x + recalled(i, x);
      const Net::AttentionRows rows = base().attention_rows(part.weights, i, x, angles);
      const at::Tensor attended = ops().attention(
          {.q = rows.q, .k = rows.k, .v = rows.v, .scale = base().score_scale(), .window = window()});
      x = base().finish_layer(part.weights, i, x, attended);
    }
    return base().normed_output(part.weights, x);
  }

  /// Returns α·W_o r of all rows; 0 in the first chunk, before which the memory is empty. x: [sequences, length,
  /// width].
  at::Tensor recalled(int layer, const at::Tensor& x) const {
    const at::Tensor masked = not_in_memory(x);
    const auto projected = [&](const char* name) {
      const at::Tensor n = ops().rms_norm(x, unit_, 1e-6, at::kFloat);
      return ops().linear(n, parameter(memory_name(layer, name))).unsqueeze(2);
    };
    const at::Tensor r = masked_attention(projected("q.weight"), projected("k.weight"), x.unsqueeze(2),
                                          1 / std::sqrt(static_cast<double>(config_.rank)), masked);
    return ops().linear(r.squeeze(2), parameter(memory_name(layer, "output.weight"))) *
           parameter(memory_name(layer, "gate"));
  }

  /// Returns [sequences, length, length], false for the states that a row reads: the `slots` of those before its
  /// chunk with the largest norm.
  at::Tensor not_in_memory(const at::Tensor& x) const {
    const at::Tensor norms = x.detach().square().sum(2);
    const int64_t sequences = norms.size(0), length = norms.size(1);
    const at::Tensor masked = at::ones({sequences, length, length}, norms.options().dtype(at::kBool));
    for (int64_t begin = config_.chunk; begin < length; begin += config_.chunk) {
      const int64_t rows = std::min(config_.chunk, length - begin), kept = std::min(config_.slots, begin);
      const at::Tensor best = std::get<1>(norms.narrow(1, 0, begin).topk(kept, 1));
      masked.narrow(1, begin, rows).scatter_(2, best.unsqueeze(1).expand({-1, rows, -1}), false);
    }
    return masked;
  }

  void add_correct(const Part& part, const at::Tensor& y, const at::Tensor& targets, size_t step) const {
    const at::Tensor correct = ops().linear(y, part.weights.output).argmax(-1).eq(targets).to(at::kFloat);
    part.agreement->add(step, (correct * part.token_weights).sum().item<double>(),
                        part.token_weights.sum().item<double>());
  }

  TrainConfig::Compress config_;
  at::Tensor unit_;  // [width], ones
};

std::unique_ptr<Trainable> make_cmr(const TrainConfig::Compress& config, FrozenBase base) {
  const uint64_t seed = base.seed;
  auto net = std::make_unique<CmrNet>(config, std::move(base));
  net->initialise(seed);
  return net;
}

}  // namespace

CompressTrainer cmr_compression() { return {"cmr", make_cmr}; }

}  // namespace fathom::train
