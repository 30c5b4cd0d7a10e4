#pragma once

#include <memory>
#include <string>
#include <utility>

#include "mixers/attention_mixer.h"
#include "mixers/short_conv.h"
#include "models/decoder.h"

namespace fathom {

/// Whether projections have biases.
enum class Bias { kIfPresent, kRequired, kNone };
/// How queries, keys and values are stored.
enum class Projections { kSeparate, kFused };
/// Norms of each query and key head.
enum class HeadNorms { kNone, kRms };

/// What distinguishes the attention of an architecture.
struct AttentionParts {
  Projections projections = Projections::kSeparate;
  Bias bias = Bias::kIfPresent;    // of q, k and v
  Bias output_bias = Bias::kNone;  // of the output projection
  HeadNorms head_norms = HeadNorms::kNone;
  float scale = 0;                        // multiplies scores; 0: 1/√key_dim
  std::unique_ptr<AttentionForm> form{};  // null: the model's (softmax, softplus, landmarks)
};

/// What distinguishes the mixture of experts of an architecture. used comes from the configuration.
struct ExpertParts {
  Routing routing;
  Activation activation = Activation::kSwiGlu;
  Bias bias = Bias::kNone;  // of the router and of the experts
};

/// Builds decoders from GGUF's tensor names. An architecture composes layers of blocks in the order of its
/// equations. Functions throw Error naming a tensor that is missing or has another shape.
class DecoderBuilder {
 public:
  DecoderBuilder(const ModelConfig& config, WeightSource& weights);

  const ModelConfig& config() const { return c_; }
  WeightSource& weights() { return weights_; }

  /// "blk.LAYER.NAME"
  static std::string name(int layer, const std::string& tensor) { return concat("blk.", layer, ".", tensor); }

  /// A matrix that decoding a token multiplies with; it is counted.
  Matrix matrix(const std::string& name, int64_t rows, int64_t cols);
  std::vector<float> vector(const std::string& name, int64_t n) { return weights_.vector(name, n); }
  std::vector<float> bias(const std::string& name, int64_t n, Bias bias);

  /// NAME.weight, [n]; n 0: the model's width.
  Norm rms_norm(const std::string& name, int64_t n = 0);
  Norm rms_norm(int layer, const std::string& tensor) { return rms_norm(name(layer, tensor)); }
  /// NAME.weight and NAME.bias.
  Norm layer_norm(const std::string& name);
  Norm layer_norm(int layer, const std::string& tensor) { return layer_norm(name(layer, tensor)); }

  /// attn_q, attn_k, attn_v (or attn_qkv), attn_output, and norms of heads.
  std::unique_ptr<Mixer> attention(int layer, AttentionParts parts = {});
  /// ssm_in, ssm_conv1d, ssm_x, ssm_dt, ssm_a, ssm_d, ssm_out: Mamba-1.
  std::unique_ptr<Mixer> mamba(int layer);
  /// ssm_in, ssm_conv1d, ssm_dt (a bias), ssm_a, ssm_d, ssm_norm (may be absent), ssm_out: Mamba-2.
  std::unique_ptr<Mixer> mamba2(int layer);
  /// ffn_gate, ffn_up, ffn_down.
  std::unique_ptr<FeedForward> feed_forward(int layer, Activation activation, Bias bias = Bias::kNone);
  /// ffn_gate_inp and ffn_gate_exps, ffn_up_exps, ffn_down_exps.
  std::unique_ptr<FeedForward> experts(int layer, ExpertParts parts);

  /// x += post(Σ branches(pre(x))) is the next step of the layer. Branches are mixers and feed-forwards.
  template <class... Branches>
  void add(int layer, Norm pre, Branches... branches) {
    Block& block = next_block(layer);
    block.pre = std::move(pre);
    (add_branch(block, std::move(branches)), ...);
  }

  Decoder& decoder() { return *decoder_; }
  /// The decoder; its output is tied to token_embd when output.weight is absent.
  std::unique_ptr<Decoder> finish(Norm output_norm);

 private:
  void projections(int layer, const LayerConfig& shape, const AttentionParts& parts, AttentionWeights& w);
  std::unique_ptr<AttentionForm> model_form() const;
  ShortConv short_conv(int layer, int64_t channels);
  Block& next_block(int layer) { return decoder_->layers.at(layer).blocks.emplace_back(); }
  static void add_branch(Block& block, std::unique_ptr<Mixer> mixer) { block.mixers.push_back(std::move(mixer)); }
  static void add_branch(Block& block, std::unique_ptr<FeedForward> ffn) {
    block.feed_forwards.push_back(std::move(ffn));
  }
  static void add_branch(Block& block, Norm post) { block.post = std::move(post); }

  const ModelConfig& c_;
  WeightSource& weights_;
  std::unique_ptr<Decoder> decoder_;
};

}  // namespace fathom
