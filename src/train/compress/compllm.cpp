#include <ATen/ATen.h>

#include <cmath>

#include "base/error.h"
#include "train/compress_kinds.h"
#include "train/context_net.h"
#include "train/random_values.h"

namespace fathom::train {
namespace {

constexpr int64_t kSegment = 20, kTokensPerEmbedding = 2;  // of the paper

/// The matrices of a layer that the adapter changes.
struct AdaptedMatrix {
  const char* name;
  at::Tensor NetWeights::Layer::*matrix;
};
constexpr AdaptedMatrix kAdapted[] = {
    {"attn_q", &NetWeights::Layer::q},      {"attn_k", &NetWeights::Layer::k},
    {"attn_v", &NetWeights::Layer::v},      {"attn_output", &NetWeights::Layer::out},
    {"ffn_gate", &NetWeights::Layer::gate}, {"ffn_up", &NetWeights::Layer::up},
    {"ffn_down", &NetWeights::Layer::down}};

/// Turns every segment of a context into fewer embeddings, each segment alone ("CompLLM: Compression for Long
/// Context Q&A", 2025). The compressor is the frozen model with a LoRA adapter: it reads a segment and then an
/// end-of-text token per embedding, whose output norms are multiplied by a matrix. The loss is the smooth L1
/// distance between the hidden states of the rest of the row after each layer and those with the plain context,
/// both divided by the standard deviation of the latter. A row's own tokens are the question and the answer.
class CompLlmNet final : public ContextNet {
 public:
  CompLlmNet(const TrainConfig::Compress& config, int64_t segment, int64_t factor, FrozenBase from)
      : ContextNet("compllm", std::move(from), config.context_share, segment, factor),
        segment_(segment),
        rank_(config.rank) {
    const NetWeights weights = base().frozen_weights(at::kFloat);
    for (int i = 0; i < base().config().model.layers; ++i) {
      for (const AdaptedMatrix& m : kAdapted) {
        const at::Tensor& w = weights.layers[i].*m.matrix;
        add_parameter(factor_name(i, m, "a"), rank_, w.size(1), true);
        add_parameter(factor_name(i, m, "b"), w.size(0), rank_, true);
      }
    }
    const int64_t width = base().config().model.width;
    add_parameter("concept.weight", width, width, true);
    allocate(base().values().device());
  }

  /// Sets B = 0, random A, and the linear layer to a multiple of the identity that gives the scale of embeddings.
  void initialise(uint64_t seed) {
    for (const NetParameter& p : parameters())
      if (p.name.ends_with("lora_a")) draw_normal(*this, p.name, seed, 1 / std::sqrt(static_cast<double>(p.cols)));
    initial("concept.weight").diagonal().fill_(embedding_scale(base()));
  }
  void set_end_token(int32_t end) { end_ = end; }

  void set_metadata(GgufWriter& writer, const Gguf*) const override {
    set_base_metadata(writer);
    writer.set(key("segment"), GgufType::kU32, segment_);
    writer.set(key("factor"), GgufType::kU32, factor());
    writer.set(key("rank"), GgufType::kU32, rank_);
    writer.set(key("end_token"), GgufType::kU32, int64_t{end_});
  }

  at::Tensor compressed(const NetWeights& weights, const at::Tensor& context) override {
    const NetWeights own = adapted(weights);
    const int64_t sequences = context.size(0), embeddings = segment_ / factor();
    const at::Tensor segments = context.reshape({-1, segment_});
    const at::Tensor ends = at::full({segments.size(0), embeddings}, end_, segments.options());
    const at::Tensor x =
        base().run_layers(own, Net::embeddings(own, at::cat({segments, ends}, 1)), 0, base().config().model.layers);
    const at::Tensor y = base().normed_output(own, x.narrow(1, segment_, embeddings).contiguous());
    return ops()
        .linear(y, matrix("concept.weight", weights.type))
        .to(at::kFloat)
        .reshape({sequences, -1, y.size(2)});
  }

 protected:
  at::Tensor part_loss(const Part& part) override {
    const Rest rest = rest_of(part);
    const at::Tensor rows = Net::embeddings(part.weights, rest.inputs),
                     prefix = compressed(part.weights, rest.context);
    if (part.agreement) return evaluated(part, rest, following(part.weights, prefix, rows));
    at::Tensor teacher = at::cat({Net::embeddings(part.weights, rest.context), rows}, 1);
    at::Tensor student = at::cat({prefix, rows}, 1), loss = at::zeros({}, rest.weights.options());
    const int layers = base().config().model.layers;
    for (int layer = 0; layer < layers; ++layer) {
      {
        const at::NoGradGuard no_gradients;
        teacher = base().run_layers(part.weights, teacher, layer, layer + 1);
      }
      student = base().run_layers(part.weights, student, layer, layer + 1);
      loss = loss + distance(newest_rows(student, rows.size(1)), newest_rows(teacher, rows.size(1)), rest.weights);
    }
    return loss / static_cast<double>(layers);
  }

 private:
  static std::string factor_name(int layer, const AdaptedMatrix& m, const char* factor) {
    return concat("blk.", layer, ".", m.name, ".weight.lora_", factor);
  }
  static at::Tensor newest_rows(const at::Tensor& x, int64_t rows) { return x.narrow(1, x.size(1) - rows, rows); }

  /// Returns Σ weight·(smooth L1 distance of a row, the mean over its dimensions).
  static at::Tensor distance(const at::Tensor& student, const at::Tensor& teacher, const at::Tensor& weights) {
    const at::Tensor scale = 1 / teacher.std().clamp_min(1e-6);
    const at::Tensor rows = at::smooth_l1_loss(student * scale, teacher * scale, at::Reduction::None).mean(2);
    return (rows * weights).sum();
  }

  /// Returns the weights of the compressor: W + B·A for each adapted matrix.
  NetWeights adapted(NetWeights weights) const {
    for (size_t i = 0; i < weights.layers.size(); ++i) {
      for (const AdaptedMatrix& m : kAdapted) {
        at::Tensor& w = weights.layers[i].*m.matrix;
        const int layer = static_cast<int>(i);
        w = w + at::matmul(parameter(factor_name(layer, m, "b")), parameter(factor_name(layer, m, "a")))
                    .to(w.scalar_type());
      }
    }
    return weights;
  }

  int64_t segment_, rank_;
  int32_t end_ = 0;
};

std::unique_ptr<Trainable> make_compllm(const TrainConfig::Compress& config, FrozenBase base) {
  const int64_t segment = config.segment > 0 ? config.segment : kSegment,
                factor = config.factor > 0 ? config.factor : kTokensPerEmbedding;
  if (segment % factor != 0)
    fail_usage("compress.segment is ", segment, ", expected a multiple of compress.factor, ", factor);
  if (base.end < 0)
    fail_usage(
        "compress.kind is compllm, but the tokenizer has no end-of-text token, which embeddings are read from");
  const uint64_t seed = base.seed;
  const int32_t end = base.end;
  auto net = std::make_unique<CompLlmNet>(config, segment, factor, std::move(base));
  net->initialise(seed);
  net->set_end_token(end);
  return net;
}

}  // namespace

CompressTrainer compllm_compression() { return {"compllm", make_compllm}; }

}  // namespace fathom::train
