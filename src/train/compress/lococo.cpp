#include <ATen/ATen.h>

#include <cmath>

#include "base/error.h"
#include "train/compress_kinds.h"
#include "train/draft_net.h"
#include "train/masked_attention.h"
#include "train/random_values.h"
#include "train/slot_mixing.h"

namespace fathom::train {
namespace {

constexpr int64_t kSlack = 16;  // entries by which a cache may exceed its slots before it is compressed
// The shares of mixtures are trained as shift / kShareScale, because their learning rate in the paper is 1/200 of
// that of the convolutions.
constexpr double kShareScale = 200;

/// A cache of fixed size whose entries are mixed by convolutions ("LoCoCo: Dropping In Convolutions for Long
/// Context Compression", 2024), in the paper's inference mode: only convolutions and shares are trained. A text is
/// read in chunks; before a chunk, a cache of more than slots + 16 entries is compressed to `slots`. Gradients of a
/// chunk's loss do not pass through the cache of earlier compressions.
class LococoNet final : public SideNet {
 public:
  LococoNet(const TrainConfig::Compress& config, uint64_t seed, FrozenBase from)
      : SideNet("compression", "lococo", std::move(from)), config_(config) {
    check_plain_attention("lococo", base(), "compress.kind");
    const ModelConfig& c = base().config().model;
    const int64_t channels = c.key_dim + c.value_dim;
    for (int i = 0; i < c.layers; ++i) {
      add_parameter(kernel_name(i), config.slots / 2, channels * config.kernel, true);
      add_parameter(bias_name(i), 0, config.slots / 2, true);
    }
    add_parameter("shift", 0, c.layers, false);
    allocate(base().values().device());
    const double limit = 1 / std::sqrt(static_cast<double>(channels * config.kernel));
    draw_uniform(*this, seed, limit);
    initial("shift").zero_();
  }

  void set_metadata(GgufWriter& writer, const Gguf*) const override {
    set_base_metadata(writer);
    writer.set(key("slots"), GgufType::kU32, config_.slots);
    writer.set(key("kernel"), GgufType::kU32, config_.kernel);
    writer.set(key("raw_keys"), GgufType::kBool, config_.raw_keys);
    const at::Tensor share = shares().contiguous();  // of mixtures, by layer
    writer.set_floats(key("mixing"), {share.data_ptr<float>(), share.data_ptr<float>() + share.numel()});
  }

 protected:
  at::Tensor part_loss(const Part& part) override {
    const int64_t length = part.tokens.size(1) - 1;
    const at::Tensor y = read(part, shares());
    if (part.agreement) add_agreement(part, y);
    return ops().cross_entropy(y.flatten(0, 1), part.weights.output, part.tokens.narrow(1, 1, length).flatten(),
                               part.token_weights.flatten());
  }

 private:
  static std::string kernel_name(int layer) { return concat("blk.", layer, ".mix.weight"); }
  static std::string bias_name(int layer) { return concat("blk.", layer, ".mix.bias"); }

  /// Returns the share of mixtures in each layer, [layers].
  at::Tensor shares() const { return (parameter("shift") / kShareScale + config_.mixing).clamp(0, 1); }

  SlotMixing mixing(int layer, const at::Tensor& shares) const {
    const ModelConfig& c = base().config().model;
    return {parameter(kernel_name(layer)).view({config_.slots / 2, c.key_dim + c.value_dim, config_.kernel}),
            parameter(bias_name(layer)), shares[layer]};
  }

  /// Returns the output norms of all rows, [sequences, length, width]. shares: [layers].
  at::Tensor read(const Part& part, const at::Tensor& shares) {
    const int64_t length = part.tokens.size(1) - 1;
    std::vector<CacheEntries> caches(base().config().model.layers);
    std::vector<at::Tensor> outputs;
    for (int64_t begin = 0; begin < length; begin += config_.chunk) {
      const int64_t count = std::min(config_.chunk, length - begin);
      at::Tensor x = Net::embeddings(part.weights, part.tokens.narrow(1, begin, count));
      for (size_t layer = 0; layer < caches.size(); ++layer) {
        CacheEntries& cache = caches[layer];
        if (cache.k.defined() && cache.size() > config_.slots + kSlack)
          cache = compressed_entries(cache, config_.slots, mixing(static_cast<int>(layer), shares));
        x = read_layer(part.weights, static_cast<int>(layer), x, begin, cache);
      }
      outputs.push_back(base().normed_output(part.weights, x));
    }
    return at::cat(outputs, 1);
  }

  /// Returns x after a layer and appends its keys and values to the cache. begin: position of the first row.
  at::Tensor read_layer(const NetWeights& weights, int layer, const at::Tensor& x, int64_t begin,
                        CacheEntries& cache) {
    const int64_t count = x.size(1), kv_heads = base().config().model.kv_heads;
    const Net::AttentionRows rows = base().attention_rows(weights, layer, x, {});
    const Angles angles = base().angles().range(begin, count);
    const auto by_head = [](const at::Tensor& t) { return t.transpose(1, 2).to(at::kFloat); };
    CacheEntries all{by_head(config_.raw_keys ? rows.k : rotated_rows(rows.k, angles)),
                     by_head(rows.v),
                     at::arange(begin, begin + count, at::kFloat).expand({x.size(0), kv_heads, count}),
                     {}};
    if (cache.k.defined()) {
      all.k = at::cat({cache.k, all.k}, 2);
      all.v = at::cat({cache.v, all.v}, 2);
      all.positions = at::cat({cache.positions, all.positions}, 2);
    }
    const at::Tensor keys = (config_.raw_keys ? rotated_entries(all) : all.k).unsqueeze(2);
    const at::Tensor q = grouped_rows(rotated_rows(rows.q, angles), kv_heads).to(at::kFloat);
    const at::Tensor later = at::ones({count, all.size()}, at::kBool).triu(all.size() - count + 1);
    const at::Tensor scores = at::matmul(q, keys.transpose(3, 4)) * base().score_scale();
    const at::Tensor shares = at::softmax(scores.masked_fill(later, kMaskedScore), -1);
    all.scores = shares.detach().sum(std::vector<int64_t>{2, 3});
    cache = all;
    const at::Tensor attended = ungrouped_rows(at::matmul(shares, all.v.unsqueeze(2))).to(weights.type);
    return base().finish_layer(weights, layer, x, attended);
  }

  at::Tensor rotated_rows(const at::Tensor& x, const Angles& angles) const {
    return angles.cos.defined() ? ops().rotary(x, angles.cos, angles.sin) : x;
  }

  /// Returns the keys rotated to the entries' positions, rounded.
  at::Tensor rotated_entries(const CacheEntries& entries) {
    const Angles angles = base().angles().of(entries.positions.round().to(at::kLong).flatten());
    return rotated_rows(entries.k.reshape({1, -1, 1, entries.k.size(3)}), angles).view(entries.k.sizes());
  }

  /// Adds the agreement with the model that keeps all entries: of mixtures, then of eviction.
  void add_agreement(const Part& part, const at::Tensor& mixed) {
    const at::Tensor embedded = Net::embeddings(part.weights, part.tokens.narrow(1, 0, part.tokens.size(1) - 1));
    const at::Tensor full = base().normed_output(
        part.weights, base().run_layers(part.weights, embedded, 0, base().config().model.layers));
    const Teacher teacher(base(), part.weights, full, part.token_weights, part.agreement);
    teacher.add_agreement({mixed, part.weights.output}, part.token_weights, 0);
    teacher.add_agreement({read(part, at::zeros_like(shares())), part.weights.output}, part.token_weights, 1);
  }

  TrainConfig::Compress config_;
};

std::unique_ptr<Trainable> make_lococo(const TrainConfig::Compress& config, FrozenBase base) {
  const uint64_t seed = base.seed;
  return std::make_unique<LococoNet>(config, seed, std::move(base));
}

}  // namespace

CompressTrainer lococo_compression() { return {"lococo", make_lococo}; }

}  // namespace fathom::train
