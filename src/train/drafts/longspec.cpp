#include <ATen/ATen.h>

#include <cmath>

#include "base/error.h"
#include "train/draft_net.h"
#include "train/masked_attention.h"

namespace fathom::train {
namespace {

constexpr int64_t kMaxDelay = 4;    // rows by which the cache of the base lags behind in training
constexpr int64_t kMaxAnchors = 4;  // first tokens that keep their positions when the others are shifted

/// Draws the matrices from N(0, 1/columns) and sets vectors to 1. Matrices that write to the residual stream stay
/// 0.
void initialise(const Trainable& net, uint64_t seed) {
  eval::Rng rng(seed, "longspec weights", 0, 0);
  const at::Tensor host = at::zeros(net.values().sizes(), at::kFloat);
  const auto normal = [&] {  // Box and Muller
    return std::sqrt(-2 * std::log(1 - rng.uniform())) * std::cos(2 * M_PI * rng.uniform());
  };
  for (const NetParameter& p : net.parameters()) {
    float* values = host.data_ptr<float>() + p.offset;
    const bool writes = p.name.ends_with("_output.weight") || p.name == "ffn_down.weight";
    for (int64_t i = 0; i < p.size(); ++i) {
      if (p.rows == 0) {
        values[i] = 1;
      } else if (!writes) {
        values[i] = static_cast<float>(normal() / std::sqrt(static_cast<double>(p.cols)));
      }
    }
  }
  net.values().copy_(host);
}

/// A layer that reads the base's cache ("LongSpec: Long-Context Lossless Speculative Decoding with Efficient
/// Drafting and Verification", 2025): self-attention in a window, cross-attention to the keys and values of the
/// base's last attention layer, a feed-forward layer, and the base's output matrix. Row i predicts token i + 1 from
/// the tokens up to i; cross-attention reads the cache up to row i − δ, with a random δ of 1 to 4 per sequence.
///
/// In a share of the sequences, positions after the first 0 to 4 are shifted by a random offset, so that the draft
/// learns positions beyond the length of rows. The base reads the tokens at unshifted positions; its last keys are
/// rotated to the shifted ones.
class LongSpecNet final : public DraftNet {
 public:
  LongSpecNet(const TrainConfig::Draft& config, uint64_t seed, FrozenBase from)
      : DraftNet("longspec", std::move(from)),
        config_(with_defaults(config, base().config().model)),
        eps_(base().config().model.norm_eps),
        angles_(rotary(), 0, base().values().device()) {
    const ModelConfig& c = base().config().model;
    check_plain_attention("longspec", base());
    if (config_.heads % config_.kv_heads != 0) {
      fail_usage("draft.heads is ", config_.heads, ", expected a multiple of draft.kv_heads, ", config_.kv_heads);
    }
    const int64_t heads = config_.heads * config_.head_dim, kv_heads = config_.kv_heads * config_.head_dim;
    add("attn_norm", 0, c.width);
    add("attn_q", heads, c.width);
    add("attn_k", kv_heads, c.width);
    add("attn_v", kv_heads, c.width);
    add("attn_output", c.width, heads);
    add("cross_norm", 0, c.width);
    add("cross_q", int64_t{c.heads} * c.key_dim, c.width);
    add("cross_output", c.width, int64_t{c.heads} * c.value_dim);
    add("ffn_norm", 0, c.width);
    add("ffn_gate", config_.ffn_width, c.width);
    add("ffn_up", config_.ffn_width, c.width);
    add("ffn_down", c.width, config_.ffn_width);
    add("output_norm", 0, c.width);
    allocate(base().values().device());
    initialise(*this, seed);
  }

  void set_metadata(GgufWriter& writer, const Gguf* tokenizer) const override {
    DraftNet::set_metadata(writer, tokenizer);
    writer.set("draft.heads", GgufType::kU32, config_.heads);
    writer.set("draft.kv_heads", GgufType::kU32, config_.kv_heads);
    writer.set("draft.head_dim", GgufType::kU32, config_.head_dim);
    writer.set("draft.ffn_width", GgufType::kU32, config_.ffn_width);
    writer.set("draft.window", GgufType::kU32, config_.window);
    writer.set("draft.norm_eps", GgufType::kF32, eps_);
    writer.set("draft.rope_base", GgufType::kF32, rotary().base);
  }

 protected:
  at::Tensor part_loss(const Part& part) override {
    const int64_t length = part.tokens.size(1) - 1;
    const Rows rows = random_rows(part.rng, part.tokens.size(0), length, part.tokens.device());
    const at::Tensor embedded = Net::embeddings(part.weights, part.tokens.narrow(1, 0, length));
    const BaseRows from = read_base(part.weights, embedded, rows.positions);
    const Teacher teacher(base(), part.weights, from.h, part.token_weights, part.agreement);
    const at::Tensor y = layer(part.weights.type, embedded, from, rows);
    if (part.agreement) {
      for (int64_t delay = 1; delay <= kMaxDelay; ++delay) {
        const at::Tensor same = rows.delays.eq(delay).unsqueeze(1).to(at::kFloat);
        teacher.add_agreement({y, part.weights.output}, part.token_weights * same, delay - 1);
      }
    }
    return teacher.loss({y, part.weights.output});
  }

 private:
  /// The random choices of a part of a batch.
  struct Rows {
    at::Tensor positions;  // [sequences · length] int64
    at::Tensor delays;     // [sequences] int64
  };
  /// What the layer reads of the base.
  struct BaseRows {
    at::Tensor h;     // output norm
    at::Tensor k, v;  // of the last layer; keys rotated to the positions of the rows
    Angles angles;    // of the base, of all rows
  };

  static TrainConfig::Draft with_defaults(TrainConfig::Draft config, const ModelConfig& base) {
    const auto set = [](int64_t& field, int64_t standard) {
      if (field == 0) field = standard;
    };
    set(config.heads, base.heads);
    set(config.kv_heads, base.kv_heads);
    set(config.head_dim, base.key_dim);
    set(config.ffn_width, base.ffn_width);
    return config;
  }

  RotaryConfig rotary() const {
    RotaryConfig rotary;
    rotary.dims = static_cast<int>(config_.head_dim);
    rotary.base = base().config().model.rotary.base;
    return rotary;
  }

  void add(const std::string& name, int64_t rows, int64_t cols) {
    add_parameter(name + ".weight", rows, cols, true);
  }

  Rows random_rows(eval::Rng& rng, int64_t sequences, int64_t length, at::Device device) const {
    const at::Tensor positions = at::arange(length, at::kLong).repeat({sequences}),
                     delays = at::empty({sequences}, at::kLong);
    for (int64_t s = 0; s < sequences; ++s) {
      delays.data_ptr<int64_t>()[s] = rng.between(1, kMaxDelay);
      if (rng.uniform() >= config_.offset_share) continue;
      const int64_t anchors = std::min(rng.between(0, kMaxAnchors), length);
      const int64_t offset = rng.between(0, std::max<int64_t>(0, config_.max_offset - length));
      int64_t* row = positions.data_ptr<int64_t>() + s * length;
      for (int64_t i = anchors; i < length; ++i) row[i] += offset;
    }
    return {positions.to(device), delays.to(device)};
  }

  BaseRows read_base(const NetWeights& weights, const at::Tensor& embedded, const at::Tensor& positions) {
    const at::NoGradGuard no_gradients;
    const int layers = base().config().model.layers;
    const at::Tensor x = base().run_layers(weights, embedded, 0, layers - 1);
    const Angles angles = base().angles().of(positions);
    const Net::AttentionRows last = base().attention_rows(weights, layers - 1, x, {});
    const at::Tensor h = base().normed_output(weights, base().run_layers(weights, x, layers - 1, layers));
    return {h, rotated(last.k, angles), last.v, angles};
  }

  /// Returns x, [sequences, length, heads, dimensions], rotated by the angles of its rows, [sequences · length].
  at::Tensor rotated(const at::Tensor& x, const Angles& angles) const {
    if (!angles.cos.defined()) return x;
    return ops().rotary(x.flatten(0, 1).unsqueeze(0), angles.cos, angles.sin).view(x.sizes());
  }

  /// Returns the output norm of the layer, [sequences, length, width]. embedded: the embeddings of the rows.
  at::Tensor layer(at::ScalarType type, const at::Tensor& embedded, const BaseRows& from, const Rows& rows) {
    const auto w = [&](const std::string& name) { return matrix(name + ".weight", type); };
    const auto normed = [&](const at::Tensor& x, const std::string& name) {
      return ops().rms_norm(x, parameter(name + ".weight"), eps_, type);
    };
    at::Tensor a =
        ops().add_linear(embedded, self_attention(normed(embedded, "attn_norm"), rows.positions), w("attn_output"));
    a = ops().add_linear(a, cross_attention(normed(a, "cross_norm"), from, rows.delays), w("cross_output"));
    a = ops().add_linear(a, ops().swiglu(normed(a, "ffn_norm"), w("ffn_gate"), w("ffn_up")), w("ffn_down"));
    return normed(a, "output_norm");
  }

  /// Returns [sequences, length, heads · head_dim].
  at::Tensor self_attention(const at::Tensor& u, const at::Tensor& positions) {
    const auto [q, k, v] =
        ops().linears(u, {matrix("attn_q.weight", u.scalar_type()), matrix("attn_k.weight", u.scalar_type()),
                          matrix("attn_v.weight", u.scalar_type())});
    const Angles angles = angles_.of(positions);
    const auto heads = [&](const at::Tensor& x, int64_t count) {
      return x.unflatten(2, {count, config_.head_dim});
    };
    const AttentionCall call{.q = rotated(heads(q, config_.heads), angles),
                             .k = rotated(heads(k, config_.kv_heads), angles),
                             .v = heads(v, config_.kv_heads),
                             .scale = 1 / std::sqrt(static_cast<double>(config_.head_dim)),
                             .window = config_.window};
    return ops().attention(call).flatten(2);
  }

  /// Returns [sequences, length, heads · value_dim of the base].
  at::Tensor cross_attention(const at::Tensor& u, const BaseRows& from, const at::Tensor& delays) {
    const ModelConfig& c = base().config().model;
    const at::Tensor q =
        ops().linear(u, matrix("cross_q.weight", u.scalar_type())).unflatten(2, {c.heads, c.key_dim});
    const at::Tensor rows = at::arange(u.size(1), delays.options());
    const at::Tensor newest = rows.unsqueeze(0) - delays.unsqueeze(1);  // [sequences, length]
    const at::Tensor masked = rows.view({1, 1, -1}) > newest.unsqueeze(2);
    return masked_attention(rotated(q, from.angles), from.k, from.v, base().score_scale(), masked).flatten(2);
  }

  TrainConfig::Draft config_;
  double eps_;
  AngleTable angles_;
};

std::unique_ptr<Trainable> make_longspec(const TrainConfig::Draft& config, FrozenBase base) {
  const uint64_t seed = base.seed;
  return std::make_unique<LongSpecNet>(config, seed, std::move(base));
}

}  // namespace

DraftTrainer longspec_draft() { return {"longspec", make_longspec}; }

}  // namespace fathom::train
