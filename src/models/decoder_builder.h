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
/// Whether the projections of queries, keys and values are three matrices or one.
enum class Projections { kSeparate, kFused };
/// Norms of each query and key head.
enum class HeadNorms { kNone, kRms };

/// The properties of attention in which architectures differ.
struct AttentionParts {
  Projections projections = Projections::kSeparate;
  Bias bias = Bias::kIfPresent;    // of q, k and v
  Bias output_bias = Bias::kNone;  // of the output projection
  HeadNorms head_norms = HeadNorms::kNone;
  float scale = 0;                        // multiplies scores; 0: 1/√key_dim
  std::unique_ptr<AttentionForm> form{};  // null: the model's form (softmax, softplus, landmarks)
};

/// The properties of a mixture of experts in which architectures differ. routing.used is set from the
/// configuration.
struct ExpertParts {
  Routing routing;
  Activation activation = Activation::kSwiGlu;
  Bias bias = Bias::kNone;  // of the router and of the experts
};

/// Builds a decoder from tensors with GGUF's names. An architecture adds the blocks of its layers in the order of
/// its equations. Functions throw Error naming a tensor that is missing or has another shape.
class DecoderBuilder {
 public:
  DecoderBuilder(const ModelConfig& config, WeightSource& weights);

  const ModelConfig& config() const { return c_; }
  WeightSource& weights() { return weights_; }

  /// "blk.LAYER.NAME"
  static std::string name(int layer, const std::string& tensor) { return concat("blk.", layer, ".", tensor); }

  /// Returns a matrix and records it in Decoder::projections.
  Matrix projection(const std::string& name, int64_t rows, int64_t cols);
  /// Like projection(), and records the matrix in Decoder::matrices, for accounting.
  Matrix matrix(const std::string& name, int64_t rows, int64_t cols);
  std::vector<float> vector(const std::string& name, int64_t n) { return weights_.vector(name, n); }
  /// Returns a bias, [n]; empty if there is none.
  std::vector<float> bias(const std::string& name, int64_t n, Bias bias);

  /// Reads NAME.weight, [n]; n = 0: the width of the model.
  Norm rms_norm(const std::string& name, int64_t n = 0);
  Norm rms_norm(int layer, const std::string& tensor) { return rms_norm(name(layer, tensor)); }
  /// Reads NAME.weight and NAME.bias, [width].
  Norm layer_norm(const std::string& name);
  Norm layer_norm(int layer, const std::string& tensor) { return layer_norm(name(layer, tensor)); }

  /// Builds attention from attn_q, attn_k, attn_v (or attn_qkv), attn_output and the norms of heads.
  std::unique_ptr<Mixer> attention(int layer, AttentionParts parts = {});
  /// Builds Mamba-1 from ssm_in, ssm_conv1d, ssm_x, ssm_dt, ssm_a, ssm_d and ssm_out.
  std::unique_ptr<Mixer> mamba(int layer);
  /// Builds Mamba-2 from ssm_in, ssm_conv1d, ssm_dt (a bias), ssm_a, ssm_d, ssm_norm (optional) and ssm_out.
  std::unique_ptr<Mixer> mamba2(int layer);
  /// Builds a dense feed-forward from ffn_gate (if the activation has a gate), ffn_up and ffn_down.
  std::unique_ptr<FeedForward> feed_forward(int layer, Activation activation, Bias bias = Bias::kNone);
  /// Builds a mixture of experts from ffn_gate_inp (the router), ffn_gate_exps, ffn_up_exps and ffn_down_exps.
  std::unique_ptr<FeedForward> experts(int layer, ExpertParts parts);

  /// Appends x += post(Σ branches(pre(x))) to the layer. Branches are mixers and feed-forwards; a Norm among them
  /// is `post`.
  template <class... Branches>
  void add(int layer, Norm pre, Branches... branches) {
    ResidualBlock& block = next_block(layer);
    block.pre = std::move(pre);
    (add_branch(block, std::move(branches)), ...);
  }

  Decoder& decoder() { return *decoder_; }
  /// Returns the decoder. Its output projection is token_embd if output.weight is absent.
  std::unique_ptr<Decoder> finish(Norm output_norm);

 private:
  void projections(int layer, const LayerConfig& shape, const AttentionParts& parts, AttentionWeights& w);
  std::unique_ptr<AttentionForm> model_form() const;
  ShortConv short_conv(int layer, int64_t channels);
  ResidualBlock& next_block(int layer) { return decoder_->layers.at(layer).blocks.emplace_back(); }
  static void add_branch(ResidualBlock& block, std::unique_ptr<Mixer> mixer) {
    block.mixers.push_back(std::move(mixer));
  }
  static void add_branch(ResidualBlock& block, std::unique_ptr<FeedForward> ffn) {
    block.feed_forwards.push_back(std::move(ffn));
  }
  static void add_branch(ResidualBlock& block, Norm post) { block.post = std::move(post); }

  const ModelConfig& c_;
  WeightSource& weights_;
  std::unique_ptr<Decoder> decoder_;
};

}  // namespace fathom
